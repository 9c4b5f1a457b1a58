//! The text part of a mail, made from its HTML: nothing decorated, no line broken, links whole and once.

use html2text::render::TextDecorator;

/// Wide enough that no line is broken: a link that is broken is no link.
const WIDTH: usize = 100_000;

/// # Errors
/// What html2text says.
pub(super) fn of_html(html: &str) -> Result<String, String> {
    let config = html2text::config::with_decorator(Plain::default()).link_footnotes(false);
    let text = config.string_from_read(html.as_bytes(), WIDTH).map_err(|e| e.to_string())?;
    Ok(without_repeats(&text))
}

/// A link whose text is its address stands there once.
fn without_repeats(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" <") {
        out.push_str(before);
        match after.split_once('>') {
            Some((link, tail)) if before.ends_with(link) && !link.is_empty() => rest = tail,
            Some(_) | None => {
                out.push_str(" <");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Text without decoration; links carry their address behind them.
#[derive(Debug, Clone, Default)]
struct Plain {
    links: Vec<String>,
}

impl TextDecorator for Plain {
    type Annotation = ();

    fn decorate_link_start(&mut self, url: &str) -> (String, ()) {
        self.links.push(url.to_owned());
        (String::new(), ())
    }

    fn decorate_link_end(&mut self) -> String {
        self.links.pop().map(|url| format!(" <{url}>")).unwrap_or_default()
    }

    fn decorate_em_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_em_end(&self) -> String {
        String::new()
    }

    fn decorate_strong_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strong_end(&self) -> String {
        String::new()
    }

    fn decorate_strikeout_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_strikeout_end(&self) -> String {
        String::new()
    }

    fn decorate_code_start(&self) -> (String, ()) {
        (String::new(), ())
    }

    fn decorate_code_end(&self) -> String {
        String::new()
    }

    fn decorate_preformat_first(&self) {}

    fn decorate_preformat_cont(&self) {}

    fn decorate_image(&mut self, _src: &str, title: &str) -> (String, ()) {
        (title.to_owned(), ())
    }

    fn header_prefix(&self, _level: usize) -> String {
        String::new()
    }

    fn quote_prefix(&self) -> String {
        "> ".to_owned()
    }

    fn unordered_item_prefix(&self) -> String {
        "- ".to_owned()
    }

    fn ordered_item_prefix(&self, number: i64) -> String {
        format!("{number}. ")
    }

    fn make_subblock_decorator(&self) -> Self {
        Self::default()
    }
}
