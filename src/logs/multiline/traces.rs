//! How stack traces look: which line may begin one, which lines go on with it.
//!
//! In: one line and what the lines before it came to. Out: a [`Verdict`]. Invariant: pure, one pass over at most
//! [`REGION`] bytes, never panics; a line decides by itself and by the [`Shape`] of the trace before it, by nothing
//! else. Each language's shape is its runtime's own printer: the JVM's `Throwable.printStackTrace`, CPython's
//! `traceback`, Go's `runtime/traceback.go`, V8's `stack`, .NET's `Exception.ToString`, MRI's `error.c`, Rust's
//! default panic hook, PHP's `zend_exceptions.c`.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use memchr::memmem;

/// How far into a line it is looked for what makes it the beginning of a trace, in bytes.
const REGION: usize = 1024;

/// Whose trace it is: a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// Java, Kotlin and whatever else runs on the JVM.
    Java,
    /// Python.
    Python,
    /// Go.
    Go,
    /// JavaScript.
    Node,
    /// C# and its like.
    DotNet,
    /// Ruby.
    Ruby,
    /// Rust.
    Rust,
    /// PHP.
    Php,
    /// Unknown, or joined by a configured expression.
    #[default]
    Other,
}

impl Language {
    /// Every language that can be named.
    pub const NAMED: [Self; 8] =
        [Self::Java, Self::Python, Self::Go, Self::Node, Self::DotNet, Self::Ruby, Self::Rust, Self::Php];

    /// The language with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|language| language.name() == name)
    }

    /// The value of the metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::Python => "python",
            Self::Go => "go",
            Self::Node => "node",
            Self::DotNet => "dotnet",
            Self::Ruby => "ruby",
            Self::Rust => "rust",
            Self::Php => "php",
            Self::Other => "other",
        }
    }
}

/// What the lines of a trace came to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A log line that reports an error: a trace may follow.
    Header,
    /// After it, what may be a function of a Go trace: the file must follow.
    HeaderFunction,
    /// `Type: message`, then frames that begin with `at`: JVM, V8, .NET. `brace`: a property list is open.
    Stack { language: Language, brace: bool },
    /// A blank line behind that.
    StackBlank { language: Language, brace: bool },
    /// V8 names the file of an uncaught error: the source line follows.
    NodeWhere,
    /// The source line was there: the caret follows.
    NodeSource,
    /// The caret was there: the error follows.
    NodeCaret,
    /// Frames of a traceback, up to its exception.
    PythonFrames,
    /// The exception was there.
    PythonDone,
    /// A blank line behind it.
    PythonBlank,
    /// `During handling of …`: another traceback follows.
    PythonLink,
    /// The box of an exception group.
    PythonGroup,
    /// A panic or a goroutine dump.
    Go,
    /// The error's own line.
    RubyHead,
    /// A blank line behind it: the source line may follow.
    RubyBlank,
    /// The source line was there: the caret follows.
    RubySource,
    /// Frames.
    Ruby,
    /// `thread … panicked at …:`: the message follows.
    RustHead,
    /// Everything behind the message.
    Rust,
    /// PHP.
    Php,
    /// The console logger of .NET: six spaces before each line of a message.
    DotNetConsole,
    /// Nothing can follow.
    Done,
}

impl Shape {
    /// Whose trace it is.
    pub(super) fn language(self) -> Language {
        match self {
            Self::Header | Self::Done => Language::Other,
            Self::Stack { language, .. } | Self::StackBlank { language, .. } => language,
            Self::NodeWhere | Self::NodeSource | Self::NodeCaret => Language::Node,
            Self::PythonFrames
            | Self::PythonDone
            | Self::PythonBlank
            | Self::PythonLink
            | Self::PythonGroup => Language::Python,
            Self::Go | Self::HeaderFunction => Language::Go,
            Self::RubyHead | Self::RubyBlank | Self::RubySource | Self::Ruby => Language::Ruby,
            Self::RustHead | Self::Rust => Language::Rust,
            Self::Php => Language::Php,
            Self::DotNetConsole => Language::DotNet,
        }
    }
}

/// What a line is to the trace before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs to it, and so do the lines that waited.
    Joins(Shape),
    /// It belongs to it if the next line does.
    Waits(Shape),
    /// It does not, and ends it.
    Ends,
}
use Verdict::{Ends, Joins, Waits};

const TRACEBACK: &[u8] = b"Traceback (most recent call last):";
const EXCEPTION_GROUP: &[u8] = b"  + Exception Group Traceback (most recent call last):";

const fn stack(language: Language) -> Shape {
    Shape::Stack { language, brace: false }
}

/// The shape that a line begins, when it may be the first one of a trace.
pub(super) fn begins(line: &[u8]) -> Option<Shape> {
    let line = without_return(line);
    let known = match *line.first()? {
        b'{' | b'\t' => return None,
        b' ' => {
            let syntax_error = line.starts_with(b"  File \"") && memmem::find(line, b"\", line ").is_some();
            return if line.starts_with(EXCEPTION_GROUP) {
                Some(Shape::PythonGroup)
            } else {
                syntax_error.then_some(Shape::PythonFrames)
            };
        }
        b'T' if line.starts_with(TRACEBACK) => Some(Shape::PythonFrames),
        b'p' if line.starts_with(b"panic: ") => Some(Shape::Go),
        b'r' if line.starts_with(b"runtime: goroutine stack exceeds") => Some(Shape::Go),
        b'g' if goroutine(line) => Some(Shape::Go),
        b'S' if signal(line) => Some(Shape::Go),
        b'f' if line.starts_with(b"fatal error: ") => Some(Shape::Go),
        b'f' | b'c' | b'w' if console_header(line) => Some(Shape::DotNetConsole),
        b't' if line.starts_with(b"thread '") => rust_head(line),
        b'U' if line.starts_with(b"Unhandled exception") || line.starts_with(b"Unhandled Exception") => {
            Some(stack(Language::DotNet))
        }
        b'U' if line.starts_with(b"Uncaught ") => Some(stack(Language::Other)),
        b'E' if line.starts_with(b"Exception in thread ") => Some(stack(Language::Other)),
        b'E' | b'F' if klog(line) => Some(Shape::Header),
        b'P' if line.starts_with(b"PHP Fatal error: ") || line.starts_with(b"PHP Parse error: ") => {
            Some(Shape::Php)
        }
        b'F' if line.starts_with(b"Fatal error: ") => Some(Shape::Php),
        b'C' if line.starts_with(b"Caused by: ") => Some(stack(Language::Java)),
        b'/' | b'f' | b'n' | b'A'..=b'Z' if node_where(line) => Some(Shape::NodeWhere),
        _ => None,
    };
    if known.is_some() {
        return known;
    }
    if thrown(line) {
        return Some(Shape::Stack { language: Language::Other, brace: line.ends_with(b"{") });
    }
    telling_word(line)
}

/// What a line is to a trace of this shape.
pub(super) fn follows(shape: Shape, line: &[u8]) -> Verdict {
    let line = without_return(line);
    let Some(first) = line.first().copied().filter(|_| !line.trim_ascii().is_empty()) else {
        return follows_blank(shape);
    };
    if first == b'{' {
        return Ends;
    }
    let indented = matches!(first, b' ' | b'\t');
    match shape {
        Shape::Header => follows_header(line),
        Shape::HeaderFunction => joins_if(go_file(line), Shape::Go),
        Shape::Stack { language, brace } | Shape::StackBlank { language, brace } => {
            let blank = matches!(shape, Shape::StackBlank { .. });
            follows_stack(line, indented, language, brace, blank)
        }
        Shape::NodeWhere => Waits(Shape::NodeSource),
        Shape::NodeSource => joins_if(caret(line), Shape::NodeCaret),
        Shape::NodeCaret => Joins(Shape::Stack { language: Language::Node, brace: line.ends_with(b"{") }),
        Shape::PythonFrames if indented => Joins(shape),
        Shape::PythonFrames if ruby(line) == Some(RubyLine::Error) => Joins(Shape::Ruby),
        Shape::PythonFrames => joins_if(python_exception(line), Shape::PythonDone),
        // Lines of the message, or of a note; another trace may begin with an indented line as well.
        Shape::PythonDone | Shape::PythonGroup if indented && begins(line).is_none() => Joins(shape),
        Shape::PythonDone | Shape::PythonBlank | Shape::PythonGroup => {
            joins_if(python_link(line), Shape::PythonLink)
        }
        Shape::PythonLink if line.starts_with(EXCEPTION_GROUP) => Joins(Shape::PythonGroup),
        Shape::PythonLink => {
            joins_if(line.starts_with(TRACEBACK) || line.starts_with(b"  File \""), Shape::PythonFrames)
        }
        Shape::Go => follows_go(line, indented),
        Shape::RubyHead | Shape::Ruby => {
            let goes_on =
                indented || ruby(line) == Some(RubyLine::Frame) || line.starts_with(b"Did you mean?");
            joins_if(goes_on, Shape::Ruby)
        }
        Shape::RubyBlank if line.starts_with(b"\tfrom ") => Joins(Shape::Ruby),
        Shape::RubyBlank => Waits(Shape::RubySource),
        Shape::RubySource => joins_if(caret(line) || line.starts_with(b"\tfrom "), Shape::Ruby),
        Shape::RustHead => joins_if(!line.starts_with(b"thread '"), Shape::Rust),
        Shape::Rust => {
            const OWN: [&[u8]; 5] = [
                b"note: ",
                b"stack backtrace:",
                b"Stack backtrace:",
                b"Caused by:",
                b"thread panicked while processing panic",
            ];
            joins_if(indented || starts_with_any(line, &OWN), Shape::Rust)
        }
        Shape::Php => {
            const OWN: [&[u8]; 5] = [b"Stack trace:", b"[stacktrace]", b"thrown in ", b"Next ", b"\"}"];
            joins_if(indented || php_frame(line) || starts_with_any(line, &OWN), Shape::Php)
        }
        Shape::DotNetConsole => joins_if(line.starts_with(b"      "), shape),
        Shape::Done => Ends,
    }
}

fn joins_if(goes_on: bool, shape: Shape) -> Verdict {
    if goes_on { Joins(shape) } else { Ends }
}

/// A blank line waits where the language has one within its traces.
fn follows_blank(shape: Shape) -> Verdict {
    match shape {
        Shape::Stack { language, brace } | Shape::StackBlank { language, brace } => {
            Waits(Shape::StackBlank { language, brace })
        }
        Shape::PythonDone | Shape::PythonBlank | Shape::PythonGroup => Waits(Shape::PythonBlank),
        Shape::RubyHead => Waits(Shape::RubyBlank),
        Shape::NodeCaret | Shape::PythonLink | Shape::Go | Shape::Rust | Shape::Php => Waits(shape),
        Shape::RustHead => Joins(Shape::Rust),
        _ => Ends,
    }
}

fn follows_header(line: &[u8]) -> Verdict {
    if line.starts_with(TRACEBACK) || line.starts_with(b"  File \"") {
        return Joins(Shape::PythonFrames);
    }
    if line.starts_with(EXCEPTION_GROUP) {
        return Joins(Shape::PythonGroup);
    }
    if let Some(language) = frame(line) {
        return Joins(stack(language));
    }
    if thrown(line) {
        return Joins(Shape::Stack { language: Language::Other, brace: line.ends_with(b"{") });
    }
    if line.starts_with(b"Caused by: ") {
        return Joins(stack(Language::Java));
    }
    if goroutine(line) || go_file(line) {
        return Joins(Shape::Go);
    }
    if ruby(line) == Some(RubyLine::Frame) {
        return Joins(Shape::Ruby);
    }
    if php_frame(line) || line.starts_with(b"[stacktrace]") || line.starts_with(b"Stack trace:") {
        return Joins(Shape::Php);
    }
    if line.starts_with(b"stack backtrace:") || line.starts_with(b"Stack backtrace:") {
        return Joins(Shape::Rust);
    }
    if bare_function(line) { Waits(Shape::HeaderFunction) } else { Ends }
}

fn follows_stack(line: &[u8], indented: bool, language: Language, brace: bool, blank: bool) -> Verdict {
    let named = |found: Language| if language == Language::Other { found } else { language };
    if line.starts_with(b"Node.js v") {
        return if named(Language::Node) == Language::Node { Joins(Shape::Done) } else { Ends };
    }
    if line.starts_with(b"(Use `node ") {
        return Joins(stack(Language::Node));
    }
    if starts_with_any(line, &[b"---> ", b"--- End of "]) {
        return Joins(stack(named(Language::DotNet)));
    }
    if line.starts_with(b"Caused by:") {
        // Rust's anyhow ends the line there.
        let found = if line.len() > 10 { Language::Java } else { Language::Rust };
        return Joins(stack(named(found)));
    }
    if starts_with_any(line, &[b"Stack backtrace:", b"stack backtrace:"]) {
        return Joins(Shape::Rust);
    }
    if indented {
        // Behind a blank line only what is plainly of the trace.
        let found = frame(line);
        let own = found.is_some()
            || !blank
            || brace
            || starts_with_any(line.trim_ascii_start(), &[b"--- End of ", b"---> "]);
        let opens = line.ends_with(b"{");
        return joins_if(
            own,
            Shape::Stack { language: named(found.unwrap_or(language)), brace: brace || opens },
        );
    }
    if blank {
        return Ends;
    }
    if brace && line.starts_with(b"}") {
        return Joins(Shape::Stack { language: named(Language::Node), brace: false });
    }
    if language == Language::Other && line.starts_with(TRACEBACK) {
        return Joins(Shape::PythonFrames);
    }
    if starts_with_any(line, &[b"Suppressed: ", b"Wrapped by: ", b"... "]) {
        return Joins(stack(named(Language::Java)));
    }
    let php = language == Language::Other && (line.starts_with(b"Stack trace:") || line.starts_with(b"#0 "));
    joins_if(php, Shape::Php)
}

fn follows_go(line: &[u8], indented: bool) -> Verdict {
    const OWN: [&[u8]; 9] = [
        b"[signal ",
        b"created by ",
        b"runtime stack:",
        b"fatal error: ",
        b"[recovered]",
        b"...",
        b"PC=",
        b"goroutine running on other thread",
        b"runtime: ",
    ];
    if line.starts_with(b"exit status ") {
        return Joins(Shape::Done);
    }
    let goes_on =
        indented || goroutine(line) || starts_with_any(line, &OWN) || go_call(line) || register(line);
    if !goes_on && bare_function(line) {
        return Waits(Shape::HeaderFunction);
    }
    joins_if(goes_on, Shape::Go)
}

fn starts_with_any(line: &[u8], beginnings: &[&[u8]]) -> bool {
    beginnings.iter().any(|beginning| line.starts_with(beginning))
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Words that tell of an error, anywhere near the beginning of a line.
fn telling_word(line: &[u8]) -> Option<Shape> {
    /// The first two may end a longer word, the next six are words of their own; the others say it by themselves.
    const WORDS: [&str; 11] = [
        "Exception",
        "Error",
        "ERROR",
        "FATAL",
        "SEVERE",
        "CRITICAL",
        "ERR",
        "FTL",
        "panic",
        ".rb:",
        "Traceback (most recent call last):",
    ];
    static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
        AhoCorasick::builder()
            .match_kind(aho_corasick::MatchKind::LeftmostLongest)
            .build(WORDS)
            .expect("few short words")
    });
    let region = &line[..line.len().min(REGION)];
    for found in FINDER.find_iter(region) {
        let before = found.start().checked_sub(1).map(|at| region[at]);
        let after = region.get(found.end()).copied();
        let ends = !after.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let starts = !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            || coloured(&region[..found.start()]);
        match found.pattern().as_usize() {
            0 | 1 if ends => return Some(Shape::Header),
            2..=8 if starts && ends => return Some(Shape::Header),
            9 if ruby(line) == Some(RubyLine::Error) => return Some(Shape::RubyHead),
            10 => return Some(Shape::Header),
            _ => {}
        }
    }
    None
}

/// True behind a colour code: `ESC [ 3 1 m`.
fn coloured(before: &[u8]) -> bool {
    let code = before.strip_suffix(b"m").unwrap_or_default();
    let len = code.iter().rev().take(12).take_while(|b| b.is_ascii_digit() || **b == b';').count();
    code[..code.len() - len].ends_with(b"\x1b[")
}

/// `java.lang.IllegalStateException: x`, `TypeError [ERR_X]: y`, `System.Exception`: a type whose name says that
/// it is thrown, then the message or nothing.
fn thrown(line: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 5] = [b"Exception", b"Error", b"Throwable", b"Failure", b"Fault"];
    if !line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') {
        return false;
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$' | b'/');
    let len = line.iter().take(256).position(|byte| !is_name(byte)).unwrap_or(line.len().min(256));
    let (name, rest) = line.split_at(len);
    ENDINGS.iter().any(|ending| name.ends_with(ending))
        && match rest.first() {
            None | Some(b':') => true,
            Some(b' ') => {
                rest.starts_with(b" [") && memmem::find(&rest[..rest.len().min(64)], b"]").is_some()
            }
            Some(_) => false,
        }
}

/// `\tat org.example.Shop.buy(Shop.java:42)`, `    at buy (/app/shop.js:4:2)`, `   at Shop.Buy() in /src/Shop.cs:line 4`.
fn frame(line: &[u8]) -> Option<Language> {
    let lead = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let place = line[lead..].strip_prefix(b"at ").filter(|place| lead > 0 && !place.is_empty())?;
    let place = &place[..place.len().min(REGION)];
    if !place.iter().any(|byte| matches!(byte, b'(' | b'/' | b'<')) {
        // `at index.js:3:1`, `at async x`.
        let numbered = place.windows(2).any(|pair| pair[0] == b':' && pair[1].is_ascii_digit());
        if !numbered && !place.starts_with(b"async ") {
            return None;
        }
    }
    let jvm = [&b".java:"[..], b".kt:", b".scala:", b"(Native Method)", b"(Unknown Source)"];
    if line[0] == b'\t' || jvm.iter().any(|mark| memmem::find(place, mark).is_some()) {
        return Some(Language::Java);
    }
    Some(if lead == 3 { Language::DotNet } else { Language::Node })
}

/// `/app/shop.js:42`, alone on its line.
fn node_where(line: &[u8]) -> bool {
    let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 7 || line.len() > 4096 {
        return false;
    }
    let Some(path) = line[..line.len() - digits].strip_suffix(b":") else { return false };
    let script = [&b".js"[..], b".mjs", b".cjs", b".ts", b".tsx", b".jsx", b".mts", b".cts"]
        .iter()
        .any(|ending| path.ends_with(ending));
    let rooted = path.starts_with(b"/")
        || path.starts_with(b"file:///")
        || path.get(1..3).is_some_and(|drive| drive == b":\\" || drive == b":/");
    script && rooted || path.starts_with(b"node:internal/") || path.starts_with(b"node:events")
}

/// `    ^^^^` and Python's `~~~^^`: nothing but marks below a source line.
fn caret(line: &[u8]) -> bool {
    let text = line.trim_ascii();
    text.contains(&b'^') && text.iter().all(|byte| matches!(byte, b'^' | b'~'))
}

/// `ValueError: message` or `KeyboardInterrupt`: whatever the class is called.
fn python_exception(line: &[u8]) -> bool {
    if !line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') {
        return false;
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'<' | b'>');
    let len = line.iter().take(256).position(|byte| !is_name(byte)).unwrap_or(line.len().min(256));
    let (name, rest) = line.split_at(len);
    // A log line of another thread is no exception: `INFO: started`.
    const LEVELS: [&[u8]; 6] = [b"DEBUG", b"INFO", b"WARN", b"WARNING", b"ERROR", b"CRITICAL"];
    !LEVELS.contains(&name) && (rest.is_empty() || rest == b":" || rest.starts_with(b": "))
}

fn python_link(line: &[u8]) -> bool {
    line.starts_with(b"During handling of the above exception, another exception occurred:")
        || line.starts_with(b"The above exception was the direct cause of the following exception:")
}

/// `goroutine 18 [running]:`.
fn goroutine(line: &[u8]) -> bool {
    line.strip_prefix(b"goroutine ").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
        && line.contains(&b'[')
}

/// `SIGQUIT: quit`, as the Go runtime announces a signal.
fn signal(line: &[u8]) -> bool {
    line.starts_with(b"SIG")
        && line.iter().take(12).position(|byte| *byte == b':').is_some_and(|at| {
            at > 4 && line[3..at].iter().all(u8::is_ascii_uppercase) && line.get(at + 1) == Some(&b' ')
        })
}

/// `main.(*Shop).Buy(0xc000012120, {0x4b9f6d, 0x3})`.
fn go_call(line: &[u8]) -> bool {
    let Some(open) = line.iter().take(REGION).position(|byte| *byte == b'(') else { return false };
    line.ends_with(b")")
        && (line[..open].contains(&b'.') || &line[..open] == b"panic")
        && line[..open].iter().all(|byte| byte.is_ascii_graphic())
        && line[0].is_ascii_alphanumeric()
}

/// `\t/app/main.go:12 +0x1d`.
fn go_file(line: &[u8]) -> bool {
    line.first() == Some(&b'\t') && memmem::find(&line[..line.len().min(REGION)], b".go:").is_some()
}

/// A function without its arguments, alone on its line: `main.(*Shop).Buy`, as zap prints its stacks.
fn bare_function(line: &[u8]) -> bool {
    line.len() <= 256
        && line.contains(&b'.')
        && !line.ends_with(b".")
        && line.first().is_some_and(u8::is_ascii_alphabetic)
        && line.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'(' | b')' | b'*' | b'_' | b'-')
        })
}

/// `rax    0x0`, of a Go crash dump.
fn register(line: &[u8]) -> bool {
    let Some(space) = line.iter().take(8).position(|byte| *byte == b' ') else { return false };
    space >= 2
        && line[..space].iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && line[space..].trim_ascii_start().starts_with(b"0x")
}

/// `E1122 14:11:42.932284       1 shop.go:42] message`: an error or a fatal one of a Kubernetes component.
fn klog(line: &[u8]) -> bool {
    line.get(1..6).is_some_and(|date| date[..4].iter().all(u8::is_ascii_digit) && date[4] == b' ')
}

/// `fail: Shop.Checkout[0]`, the first line of .NET's console logger.
fn console_header(line: &[u8]) -> bool {
    let level = starts_with_any(line, &[b"fail: ", b"crit: ", b"warn: "]);
    let rest = line.get(6..).unwrap_or_default();
    level && rest.ends_with(b"]") && rest.contains(&b'[') && !rest.contains(&b' ')
}

/// `thread 'main' panicked at src/main.rs:4:5:`, then the message; before Rust 1.73 the message stood before the place.
fn rust_head(line: &[u8]) -> Option<Shape> {
    memmem::find(&line[..line.len().min(REGION)], b"panicked at ")?;
    let place = line.strip_suffix(b":").unwrap_or_default();
    let digits = place.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    Some(if digits > 0 { Shape::RustHead } else { Shape::Rust })
}

fn php_frame(line: &[u8]) -> bool {
    let digits = line.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
    line.first() == Some(&b'#') && digits > 0 && line.get(digits + 1) == Some(&b' ')
}

/// What a line with a Ruby source place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RubyLine {
    /// ``/app/shop.rb:3:in `buy': no stock (RuntimeError)``
    Error,
    /// ``/app/shop.rb:9:in `<main>'``
    Frame,
}

fn ruby(line: &[u8]) -> Option<RubyLine> {
    let line = &line[..line.len().min(REGION)];
    let at = memmem::find(line, b".rb:")?;
    if line[..at].contains(&b' ') {
        return None;
    }
    let rest = &line[at + 4..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let place = rest.get(digits..).filter(|_| digits > 0)?.strip_prefix(b":in ")?;
    if !matches!(place.first(), Some(b'`' | b'\'')) {
        return None;
    }
    if memmem::find(place, b"': ").is_some() {
        Some(RubyLine::Error)
    } else {
        place.ends_with(b"'").then_some(RubyLine::Frame)
    }
}

#[cfg(test)]
#[path = "traces_tests.rs"]
mod tests;
