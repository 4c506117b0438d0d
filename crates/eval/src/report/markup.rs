//! HTML as a tree. Text enters it in one way, escaped; the only markup that is taken as it is was compiled in.

/// An element, text, or a style sheet or script of this crate.
pub(super) enum Node {
    Element(Element),
    Text(String),
    /// `'static`: nothing that comes from a user can be here.
    Compiled(&'static str),
}

pub(super) struct Element {
    tag: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Node>,
}

/// An element without content yet.
pub(super) fn el(tag: &'static str) -> Element {
    Element {
        tag,
        attributes: Vec::new(),
        children: Vec::new(),
    }
}

impl Element {
    pub(super) fn attr(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    pub(super) fn class(self, names: &str) -> Self {
        self.attr("class", names)
    }

    pub(super) fn text(mut self, text: impl ToString) -> Self {
        self.children.push(Node::Text(text.to_string()));
        self
    }

    pub(super) fn child(mut self, child: Element) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children
            .extend(children.into_iter().map(Node::Element));
        self
    }

    pub(super) fn compiled(mut self, markup: &'static str) -> Self {
        self.children.push(Node::Compiled(markup));
        self
    }

    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(self.tag);
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("=\"");
            escape(value, out);
            out.push('"');
        }
        out.push('>');
        if matches!(self.tag, "meta" | "link" | "img" | "input" | "br") {
            return;
        }
        for child in &self.children {
            match child {
                Node::Element(child) => child.write(out),
                Node::Text(text) => escape(text, out),
                Node::Compiled(markup) => out.push_str(markup),
            }
        }
        out.push_str("</");
        out.push_str(self.tag);
        out.push('>');
    }
}

/// Characters that mean something to HTML become references; those that would hide or turn text around become a
/// replacement character.
fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => out.push('\u{fffd}'),
            // Marks of direction: a file name could turn the words around it.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            _ => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_cannot_leave_their_place() {
        let evil = "</script><img src=x onerror=alert('1')>\" & \u{202e}\u{0}";
        let page = el("p").attr("title", evil).text(evil).render();
        let safe = "&lt;/script&gt;&lt;img src=x onerror=alert(&#39;1&#39;)&gt;&quot; &amp; \u{fffd}\u{fffd}";
        assert_eq!(page, format!("<p title=\"{safe}\">{safe}</p>"));
    }
}
