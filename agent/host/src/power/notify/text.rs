//! A pack's words as a desktop may show them: bounded, on one line where one line is wanted, without characters that do something, under
//! a name that the pack does not choose.

use super::{Message, NotifyError};
use crate::limits::{NOTIFY_BODY as BODY, NOTIFY_TITLE as TITLE};

/// What a notification server is given.
#[derive(Debug)]
pub(super) struct Text {
    /// Whose it is: the agent, for a pack.
    pub(super) application: String,
    /// The first line. The pack stands here too, because many desktops do not show the application.
    pub(super) summary: String,
    body: String,
}

/// The text of a pack's message.
pub(super) fn of(pack: &str, message: &Message) -> Result<Text, NotifyError> {
    let within = |what: &str, text: &str, most: usize| match text.chars().count() {
        count if count > most => Err(NotifyError::Limit(format!("a {what} has at most {most} characters, this one has {count}"))),
        _ => Ok(()),
    };
    within("title", &message.title, TITLE)?;
    within("body", &message.body, BODY)?;
    let title = clean(&message.title).replace('\n', " ");
    if title.trim().is_empty() {
        return Err(NotifyError::Failed("a message needs a title".into()));
    }
    Ok(Text { application: format!("Outhaul: {pack}"), summary: format!("{pack} (Outhaul): {}", title.trim()), body: clean(&message.body) })
}

impl Text {
    /// The body, for a server that reads markup or one that does not.
    pub(super) fn body(&self, markup: bool) -> String {
        match markup {
            true => escape(&self.body),
            false => self.body.clone(),
        }
    }
}

/// Text without control characters and without those that turn the direction of what follows, which could make one name read as another.
fn clean(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain = |c: char| match c {
        '\n' => '\n',
        '\t' => ' ',
        '\u{2028}' | '\u{2029}' => '\n',
        c if c.is_control() || turns(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.replace("\r\n", "\n").chars().map(plain).collect()
}

/// Text that reads as itself where `<b>` would be bold.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Urgency;
    use super::*;

    fn text(title: &str, body: &str) -> Result<Text, NotifyError> {
        of("thermal", &Message { title: title.into(), body: body.into(), urgency: Urgency::Normal })
    }

    #[test]
    fn every_message_says_whose_it_is() {
        let text = text("Bank: log in again", "now").expect("fits");
        assert_eq!((text.application.as_str(), text.summary.as_str()), ("Outhaul: thermal", "thermal (Outhaul): Bank: log in again"));
    }

    #[test]
    fn markup_is_text_wherever_it_is_read() {
        let text = text("<b>x</b>", "<a href=\"x\">'y' &amp; z</a>").expect("fits");
        assert_eq!(text.body(true), "&lt;a href=&quot;x&quot;&gt;&#39;y&#39; &amp;amp; z&lt;/a&gt;");
        assert_eq!(text.body(false), "<a href=\"x\">'y' &amp; z</a>");
    }

    #[test]
    fn characters_that_do_something_are_replaced() {
        let text = text("a\nb\u{1b}[2J\u{202e}c", "1\r\n2\t3\u{2028}4\u{0}\u{2067}").expect("fits");
        assert_eq!(text.summary, "thermal (Outhaul): a b\u{fffd}[2J\u{fffd}c");
        assert_eq!(text.body(false), "1\n2 3\n4\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_too_long_or_empty_is_refused() {
        assert!(text(&"é".repeat(TITLE), &"é".repeat(BODY)).is_ok(), "characters count, not bytes");
        assert!(matches!(text(&"x".repeat(TITLE + 1), ""), Err(NotifyError::Limit(why)) if why.contains("121")));
        assert!(matches!(text("x", &"x".repeat(BODY + 1)), Err(NotifyError::Limit(_))));
        assert!(matches!(text(" \n ", "x"), Err(NotifyError::Failed(_))));
    }
}
