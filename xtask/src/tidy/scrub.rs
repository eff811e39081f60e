//! Splits Rust source into code and comments, line by line, so that rules about code do not trip over prose and strings.
//!
//! Both views keep every line, and the code view keeps every column: what is not code is blank. It is a scanner, not a parser: source that does
//! not compile may confuse it.

/// A source file in two views of the same lines.
pub(super) struct Views {
    /// Code with the contents of comments, strings and character literals blanked.
    pub(super) code: Vec<String>,
    /// Comments only.
    pub(super) comments: Vec<String>,
}

pub(super) fn views(source: &str) -> Views {
    let mut scanner = Scanner { text: source.chars().collect(), at: 0, code: String::new(), comments: String::new() };
    while scanner.at < scanner.text.len() {
        scanner.step();
    }
    let lines = |text: &str| text.split('\n').map(str::to_owned).collect();
    Views { code: lines(&scanner.code), comments: lines(&scanner.comments) }
}

struct Scanner {
    text: Vec<char>,
    at: usize,
    code: String,
    comments: String,
}

#[derive(Clone, Copy, PartialEq)]
enum To {
    Code,
    Comment,
    Neither,
}

impl Scanner {
    fn step(&mut self) {
        let (here, next) = (self.peek(0), self.peek(1));
        match here {
            Some('/') if next == Some('/') => {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.take(To::Comment);
                }
            }
            Some('/') if next == Some('*') => self.block_comment(),
            Some('"') => self.string(),
            Some('\'') => self.quote(),
            // Raw strings, and identifiers that merely end in `r`, are told apart by what stands before.
            Some('r') if !self.in_word() && self.raw_hashes(1).is_some() => self.raw_string(1),
            Some('b' | 'c') if next == Some('r') && !self.in_word() && self.raw_hashes(2).is_some() => {
                self.raw_string(2)
            }
            _ => self.take(To::Code),
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn in_word(&self) -> bool {
        self.at > 0 && self.text.get(self.at - 1).is_some_and(|c| c.is_alphanumeric() || *c == '_')
    }

    fn take(&mut self, to: To) {
        let Some(character) = self.peek(0) else {
            return;
        };
        let blank = |keep: bool| {
            if keep || character == '\n' { character } else { ' ' }
        };
        self.code.push(blank(to == To::Code));
        self.comments.push(blank(to == To::Comment));
        self.at += 1;
    }

    fn take_many(&mut self, count: usize, to: To) {
        (0..count).for_each(|_| self.take(to));
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.take_many(2, To::Comment);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.take_many(2, To::Comment);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.take(To::Comment),
            }
        }
    }

    fn string(&mut self) {
        self.take(To::Code);
        while let Some(character) = self.peek(0) {
            match character {
                '\\' => self.take_many(2, To::Neither),
                '"' => return self.take(To::Code),
                _ => self.take(To::Neither),
            }
        }
    }

    /// The number of `#` of a raw string whose prefix is `prefix` letters long; none when it is no raw string.
    fn raw_hashes(&self, prefix: usize) -> Option<usize> {
        let hashes = (prefix..).take_while(|ahead| self.peek(*ahead) == Some('#')).count();
        (self.peek(prefix + hashes) == Some('"')).then_some(hashes)
    }

    fn raw_string(&mut self, prefix: usize) {
        let hashes = self.raw_hashes(prefix).unwrap_or(0);
        self.take_many(prefix + hashes + 1, To::Code);
        while self.at < self.text.len() {
            if self.peek(0) == Some('"') && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                return self.take_many(hashes + 1, To::Code);
            }
            self.take(To::Neither);
        }
    }

    /// A character literal is blanked; a lifetime is code.
    fn quote(&mut self) {
        let escaped = self.peek(1) == Some('\\');
        let literal = escaped || self.peek(2) == Some('\'');
        self.take(To::Code);
        if !literal {
            return;
        }
        if escaped {
            self.take_many(2, To::Neither);
        } else {
            self.take(To::Neither);
        }
        while self.peek(0).is_some_and(|c| c != '\'' && c != '\n') {
            self.take(To::Neither);
        }
        self.take(To::Code);
    }
}

/// Where `word` stands as a whole word in a line.
pub(super) fn word_at(line: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = line[..*at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_code_and_what_is_not() {
        let table = [
            ("let a = 1; // unsafe", "let a = 1;"),
            ("let a = \"unsafe \\\" unsafe\"; b", "let a = \"                \"; b"),
            ("let a = r#\"x\"unsafe\"#; b", "let a = r#\"        \"#; b"),
            ("/* a /* b */ unsafe */ c", "                       c"),
            ("let c = '\"'; unsafe", "let c = ' '; unsafe"),
            ("let c = '\\''; unsafe", "let c = '  '; unsafe"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("let c = b'{';", "let c = b' ';"),
            ("let s = br\"unsafe\";", "let s = br\"      \";"),
            ("let forr = var\"\"", "let forr = var\"\""),
        ];
        for (source, code) in table {
            assert_eq!(views(source).code[0].trim_end(), code.trim_end(), "{source}");
        }
    }

    #[test]
    fn both_views_keep_every_line() {
        let source = "a\n/* b\n c */ d\n\"e\nf\"\n";
        let views = views(source);
        assert_eq!(views.code.len(), 6);
        assert_eq!(views.comments.len(), 6);
        assert_eq!(views.comments[2].trim(), "c */");
        assert_eq!(views.code[2].trim(), "d");
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(word_at("forbid(unsafe_code) unsafe {", "unsafe"), Some(20));
        assert_eq!(word_at("unsafely", "unsafe"), None);
    }
}
