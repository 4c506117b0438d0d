"use strict";
// Two pictures of the same seeds, side by side until this runs; then one over the other, with a slider between them.
for (const pair of document.querySelectorAll("[data-compare]")) {
  const controls = pair.querySelector(".controls");
  const stage = pair.querySelector(".pair");
  const slider = controls.querySelector("input");
  const reading = controls.querySelector(".reading");
  const buttons = [...controls.querySelectorAll("button")];
  const names = [pair.dataset.before, pair.dataset.after];
  const show = () => {
    // To the right of the cut lies the second picture.
    const second = Number(slider.value);
    stage.style.setProperty("--cut", `${100 - second}%`);
    stage.classList.toggle("ends", second === 0 || second === 100);
    const text = second === 0 ? names[0] : second === 100 ? names[1] : `${names[1]}: right ${second}%`;
    reading.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  const mode = (chosen) => {
    const over = chosen !== "both";
    stage.classList.toggle("over", over);
    slider.disabled = !over;
    if (chosen === "before") slider.value = 0;
    if (chosen === "after") slider.value = 100;
    press(chosen);
    if (over) show();
    else reading.textContent = "side by side";
  };
  const press = (chosen) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.show === chosen));
  };
  for (const button of buttons) button.addEventListener("click", () => mode(button.dataset.show));
  slider.addEventListener("input", () => {
    press(slider.value === "0" ? "before" : slider.value === "100" ? "after" : "");
    show();
  });
  controls.hidden = false;
  mode("both");
}
// A page is printed with everything open.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")].filter((d) => d.dataset.print !== "no");
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});
