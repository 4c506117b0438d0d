// Opens reports in headless Chromium, as a reader does: on a desktop and on a phone, by day and by night, on paper.
// REPORTS names the pages (separated by ':'), SCREENSHOTS a folder for pictures of them.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { mkdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const reports = (process.env.REPORTS ?? "").split(":").filter(Boolean);
const pictures = process.env.SCREENSHOTS;
const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 360, height: 740, isMobile: true, hasTouch: true } };

let browser;
before(async () => {
  assert.ok(reports.length > 0, "REPORTS names no page");
  if (pictures) mkdirSync(pictures, { recursive: true });
  browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    headless: true,
  });
});
after(() => browser?.close());

// A page, and what went wrong on it. It is opened as a mail attachment is: a file, and nothing beside it.
async function open(report, size, scheme) {
  const page = await browser.newPage();
  const wrong = [];
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) wrong.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  const url = pathToFileURL(path.resolve(report)).href;
  page.on("request", (request) => {
    const target = request.url();
    if (!target.startsWith("data:") && target.split("#")[0] !== url) wrong.push(`request: ${target}`);
  });
  await page.setViewport(sizes[size]);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  const start = performance.now();
  await page.goto(url, { waitUntil: "load" });
  return { page, wrong, seconds: (performance.now() - start) / 1000 };
}

const label = (report) => path.basename(path.dirname(path.resolve(report)));

for (const report of reports) {
  for (const size of Object.keys(sizes)) {
    for (const scheme of ["light", "dark"]) {
      test(`${report}: ${size}, ${scheme}`, async () => {
        const { page, wrong, seconds } = await open(report, size, scheme);
        assert.ok(seconds < 3, `opened after ${seconds} s`);
        if (pictures) {
          await page.screenshot({ path: `${pictures}/${label(report)}-${size}-${scheme}.png`, fullPage: true });
        }

        // Nothing sticks out: only tables and code scroll sideways, in their own boxes.
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${wide} pixels wider than the screen`);

        const broken = await page.$$eval("img", (all) => all.filter((i) => !i.complete || i.naturalWidth === 0).length);
        assert.equal(broken, 0, "pictures that do not load");

        await page.evaluate(axe);
        for (const state of ["as it opens", "with everything open"]) {
          const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
          const serious = found.violations.filter((v) => ["serious", "critical"].includes(v.impact));
          const list = serious.map((v) => `${v.id}: ${v.help}\n  ${v.nodes.map((n) => n.html).slice(0, 3).join("\n  ")}`);
          assert.deepEqual(list, [], state);
          if (state === "as it opens") await click(page);
        }
        if (pictures) {
          await page.screenshot({ path: `${pictures}/${label(report)}-${size}-${scheme}-open.png`, fullPage: true });
        }
        assert.deepEqual(wrong, []);
        await page.close();
      });
    }
  }

  test(`${report}: the slider moves by keyboard and says where it is`, async () => {
    const { page, wrong } = await open(report, "desktop", "light");
    if (!(await page.$("[data-compare]"))) return;
    assert.equal(await page.$eval("[data-compare] .controls", (e) => e.hidden), false);
    await page.focus('[data-show="before"]');
    await page.keyboard.press("Enter");
    const cut = () => page.$eval(".pair", (e) => e.style.getPropertyValue("--cut"));
    const said = () => page.$eval("#compare", (e) => e.getAttribute("aria-valuetext"));
    assert.deepEqual([await cut(), await said()], ["100%", "before"]);
    await page.focus("#compare");
    await page.keyboard.press("End");
    assert.deepEqual([await cut(), await said()], ["0%", "after"]);
    await page.keyboard.press("ArrowLeft");
    assert.deepEqual([await cut(), await said()], ["1%", "after: right 99%"]);
    // Both pictures lie exactly over each other.
    const boxes = await page.$$eval(".pair img", (all) => all.map((i) => i.getBoundingClientRect().toJSON()));
    for (const side of ["x", "y", "width", "height"]) assert.equal(boxes[0][side], boxes[1][side], side);
    if (pictures) {
      await page.$eval("#compare", (e) => { e.value = 50; e.dispatchEvent(new Event("input")); });
      await (await page.$("#samples")).screenshot({ path: `${pictures}/${label(report)}-slider.png` });
    }
    assert.deepEqual(wrong, []);
    await page.close();
  });

  test(`${report}: everything in it can be reached by Tab`, async () => {
    const { page } = await open(report, "desktop", "light");
    const wanted = await page.$$eval("a, button, input:not([disabled]), summary, [tabindex='0']", (all) =>
      all.filter((e) => e.checkVisibility()).length);
    const reached = new Set();
    for (let i = 0; i < wanted + 5; i++) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => [...document.querySelectorAll("*")].indexOf(document.activeElement)));
    }
    assert.ok(reached.size >= wanted, `${reached.size} of ${wanted}`);
    await page.close();
  });

  test(`${report}: prints, weighs little, and reads without its script`, async () => {
    assert.ok(statSync(report).size < 5e6, `${statSync(report).size} bytes`);
    const { page, wrong } = await open(report, "desktop", "dark");
    const pdf = await page.pdf({ format: "A4", printBackground: true });
    assert.ok(pdf.length > 10_000);
    if (pictures) await page.pdf({ format: "A4", path: `${pictures}/${label(report)}.pdf` });
    assert.deepEqual(wrong, []);
    await page.close();

    const plain = await browser.newPage();
    await plain.setJavaScriptEnabled(false);
    await plain.goto(pathToFileURL(path.resolve(report)).href);
    const hidden = await plain.$$eval("img", (all) => all.filter((i) => !i.checkVisibility()).length);
    assert.equal(hidden, 0);
    await plain.close();
  });
}

test("markup that slipped into a page would neither run nor call out", async () => {
  const calls = [];
  const server = createServer((request, response) => {
    calls.push(request.url);
    response.end("globalThis.ran = 1");
  });
  server.unref();
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const from = `http://127.0.0.1:${server.address().port}`;
  const evil = `<img src="${from}/image"><script src="${from}/script"></script><link rel=stylesheet href="${from}/style">
    <script>globalThis.ran = 1</script><b onclick="globalThis.ran = 1" id=evil>x</b></main>`;
  const text = readFileSync(reports[0], "utf8").replace("</main>", () => evil);
  const show = async (text) => {
    const page = await browser.newPage();
    await page.setContent(text, { waitUntil: "load", timeout: 20_000 });
    return page;
  };
  let page = await show(text);
  await page.$eval("#evil", (e) => e.click());
  assert.equal(await page.evaluate(() => globalThis.ran), undefined);
  assert.deepEqual(calls, []);
  // Without the policy it would: this test can fail.
  await page.close();
  page = await show(text.replace("Content-Security-Policy", "x"));
  await page.$eval("#evil", (e) => e.click());
  assert.equal(await page.evaluate(() => globalThis.ran), 1);
  assert.ok(calls.length > 0);
  await page.close();
  server.closeAllConnections();
  server.close();
});

// Clicks and opens all that reacts.
async function click(page) {
  for (const summary of await page.$$("summary")) await summary.evaluate((e) => e.click());
  for (const button of await page.$$("button")) {
    await button.evaluate((e) => e.click());
    assert.equal(await button.evaluate((e) => e.getAttribute("aria-pressed")), "true");
  }
  for (const input of await page.$$("input[type=range]")) {
    await input.evaluate((e) => { e.value = 30; e.dispatchEvent(new Event("input")); });
  }
  for (const link of await page.$$("nav a")) {
    const target = await link.evaluate((e) => e.getAttribute("href"));
    await link.evaluate((e) => e.click());
    assert.ok(await page.$(target), target);
  }
}
