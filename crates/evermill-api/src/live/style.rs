//! Lines of styled text: as they are, or with a terminal's colours.

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As the terminal writes.
    Plain,
    /// What matters most.
    Strong,
    /// What explains.
    Faint,
    /// At work, or well.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

impl Style {
    /// The parameters that switch it on (ECMA-48: SGR).
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
        }
    }
}

/// One line on a screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// Appends a piece; what would move a cursor becomes a space.
    pub(super) fn add(&mut self, style: Style, text: impl AsRef<str>) -> &mut Self {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        self.0
            .push((style, text.as_ref().chars().map(plain).collect()));
        self
    }

    /// Appends spaces up to a column.
    pub(super) fn to(&mut self, column: usize) -> &mut Self {
        let missing = column.saturating_sub(self.width());
        self.add(Style::Plain, " ".repeat(missing))
    }

    /// Characters, each of which takes one cell in everything we draw ourselves.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Cut to a width; what is cut off leaves an ellipsis.
    pub(super) fn clipped(mut self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut left = width.saturating_sub(1);
        for (_, text) in &mut self.0 {
            let keep = text.chars().count().min(left);
            *text = text.chars().take(keep).collect();
            left -= keep;
        }
        self.add(Style::Plain, if width > 0 { "…" } else { "" });
        self
    }

    /// The text alone, without spaces at its end.
    #[must_use]
    pub fn text(&self) -> String {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }

    /// The text with colours.
    #[must_use]
    pub fn coloured(&self) -> String {
        let mut out = String::new();
        for (style, text) in self.0.iter().filter(|(_, text)| !text.is_empty()) {
            match style.code() {
                "" => out.push_str(text),
                code => out.extend(["\x1b[", code, "m", text, "\x1b[0m"]),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let mut line = Line::default();
        line.add(Style::Good, "●").to(4).add(Style::Plain, "orders");
        line
    }

    #[test]
    fn colours_are_switched_off_again_and_never_change_the_text() {
        assert_eq!(line().coloured(), "\u{1b}[32m●\u{1b}[0m   orders");
        assert_eq!(line().text(), "●   orders");
    }

    #[test]
    fn a_long_line_is_cut_to_the_width_and_says_so() {
        assert_eq!(line().clipped(10).text(), "●   orders");
        assert_eq!(line().clipped(9).text(), "●   orde…");
        assert_eq!(line().clipped(1).text(), "…");
        assert_eq!(line().clipped(0).text(), "");
    }

    #[test]
    fn what_a_task_prints_cannot_move_the_cursor() {
        let mut line = Line::default();
        line.add(Style::Plain, "a\u{1b}[2Jb\tc");
        assert_eq!(line.text(), "a [2Jb c");
    }
}
