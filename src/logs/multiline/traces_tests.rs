//! Single lines against the recognisers. Whole traces are in `tests/corpus/multiline`.

use super::*;

fn shape(line: &str) -> Option<Shape> {
    begins(line.as_bytes())
}

#[test]
fn what_reports_an_error_may_begin_a_trace() {
    for (line, expected) in [
        ("Traceback (most recent call last):", Shape::PythonFrames),
        ("Traceback (most recent call last):\r", Shape::PythonFrames),
        ("  + Exception Group Traceback (most recent call last):", Shape::PythonGroup),
        ("panic: boom", Shape::Go),
        ("goroutine 18 [running]:", Shape::Go),
        ("SIGQUIT: quit", Shape::Go),
        ("thread 'main' panicked at src/main.rs:4:5:", Shape::RustHead),
        ("thread 'main' (12) panicked at src/main.rs:4:5:", Shape::RustHead),
        ("thread 'main' panicked at 'boom', src/main.rs:4:5", Shape::Rust),
        ("Unhandled exception. System.Exception: x", stack(Language::DotNet)),
        ("java.lang.Error: x", stack(Language::Other)),
        ("TypeError [ERR_INVALID_ARG_TYPE]: x", stack(Language::Other)),
        ("/app/shop.js:42", Shape::NodeWhere),
        ("node:internal/process/promises:389", Shape::NodeWhere),
        ("file:///app/shop.mjs:4", Shape::NodeWhere),
        ("shop.rb:3:in `buy': no stock (RuntimeError)", Shape::RubyHead),
        ("PHP Fatal error:  Uncaught Exception: x in /a.php:3", Shape::Php),
        ("fail: Shop.Checkout[0]", Shape::DotNetConsole),
        ("E1122 14:11:42.932284       1 shop.go:42] x", Shape::Header),
        ("2026-11-22 14:11:42 ERROR x", Shape::Header),
        ("[ERROR] x", Shape::Header),
        ("\u{1b}[31mERROR\u{1b}[0m x", Shape::Header),
        ("x failed: java.io.IOException: y", Shape::Header),
        ("Exception ignored in: <x>", Shape::Header),
    ] {
        assert_eq!(shape(line), Some(expected), "{line}");
    }
}

#[test]
fn ordinary_lines_begin_nothing() {
    for line in [
        "",
        " ",
        "\tat org.example.Shop.buy(Shop.java:42)",
        r#"{"level":"ERROR","stack":"Error: x\n    at y"}"#,
        "listening on 0.0.0.0:8080",
        "no errors found",
        "ErrorHandler initialised",
        "TERRORS",
        "ERROR_COUNT=0",
        "thread 'main' started",
        "panicking is not needed",
        "  indented",
        "/app/shop.js",
        "/healthz:200",
        "12:30:45",
        "https://example.com/app.js:1",
        "I1122 14:11:42.932284       1 shop.go:42] x",
        "F1",
        "info: Microsoft.Hosting.Lifetime[0]",
        "warn: something else [x y]",
        "requests.rb:3 loaded",
    ] {
        assert_eq!(shape(line), None, "{line}");
    }
}

#[test]
fn a_frame_is_told_from_a_sentence() {
    for (line, expected) in [
        ("\tat org.example.Shop.buy(Shop.java:42)", Some(Language::Java)),
        ("    at org.example.Shop.buy(Shop.kt:42)", Some(Language::Java)),
        ("    at buy (/app/shop.js:4:2)", Some(Language::Node)),
        ("    at async buy", Some(Language::Node)),
        ("    at index.js:3:1", Some(Language::Node)),
        ("   at Shop.Buy() in /src/Shop.cs:line 4", Some(Language::DotNet)),
        ("at org.example.Shop.buy(Shop.java:42)", None),
        ("\tat the station", None),
        ("  at", None),
        ("  at ", None),
    ] {
        assert_eq!(frame(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn a_pythons_exception_is_told_from_a_log_line() {
    for (line, expected) in [
        ("ValueError: x", true),
        ("KeyboardInterrupt", true),
        ("shop.errors.NoStock: sku 42", true),
        ("main.<locals>.E: x", true),
        ("AssertionError:", true),
        ("INFO: started", false),
        ("two words", false),
        ("12:30 x", false),
        ("2026-11-22", false),
    ] {
        assert_eq!(python_exception(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn any_bytes_are_judged_without_a_panic() {
    let lines: [&[u8]; 9] =
        [b"\xff\xfe", b":", b"(", b".rb:", b"x.rb:1:in ", b"#", b"SIG", b"thread '", b"  File \""];
    let mut shapes = vec![
        Shape::Header,
        Shape::HeaderFunction,
        Shape::StackBlank { language: Language::Node, brace: true },
        Shape::NodeSource,
        Shape::NodeCaret,
        Shape::PythonDone,
        Shape::PythonBlank,
        Shape::PythonLink,
        Shape::RubyBlank,
        Shape::RubySource,
        Shape::Done,
    ];
    shapes.extend(
        ["Error: x", "panic: x", "shop.rb:3:in `a': b (C)", "PHP Fatal error: x", "/a.js:1"]
            .iter()
            .filter_map(|line| shape(line)),
    );
    assert_eq!(shapes.len(), 16);
    for line in lines {
        for end in 0..=line.len() {
            assert_eq!(begins(&line[..end]).filter(|_| end == 0), None);
            for shape in &shapes {
                let verdict = follows(*shape, &line[..end]);
                assert!(*shape != Shape::Done || verdict == Ends);
            }
        }
    }
}
