//! The cases of Prometheus' own text-parse tests, in our words: what is read from which text, and what is refused where.

use nodewick::scrape::{Dialect, Failure};

use crate::support::{open, read, samples, text};

/// One line of text, and the sample that comes of it; an empty one where none does.
const TEXT: &[(&str, &str)] = &[
    // Plain.
    ("a 1", "a 1"),
    ("a 1\n", "a 1"),
    ("a\t1\n", "a 1"),
    ("a  1 \t\n", "a 1"),
    ("  a 1\n", "a 1"),
    ("a 1 123\n", "a 1 @123"),
    ("go_goroutines 33  \t123123\n", "go_goroutines 33 @123123"),
    ("a{} 1\n", "a 1"),
    ("a{}1\n", "a 1"),
    ("a+1\n", "a 1"),
    ("a 1e3\n", "a 1000"),
    ("a 7.424100000000001e-05\n", "a 0.00007424100000000001"),
    ("some:aggregate:rate5m{a_b=\"c\"}\t1\n", "some:aggregate:rate5m{a_b=\"c\"} 1"),
    ("_leading_underscore 1\n", "_leading_underscore 1"),
    (":leading_colon 1\n", ":leading_colon 1"),
    ("m{_label=\"foo\"} 1\n", "m{_label=\"foo\"} 1"),
    // Special values.
    ("a NaN\n", "a NaN"),
    ("a nan\n", "a NaN"),
    ("a +Inf\n", "a inf"),
    ("a -Inf\n", "a -inf"),
    ("a inf 5\n", "a inf @5"),
    ("a -0\n", "a -0"),
    // White space and commas among labels: none are needed, many are allowed.
    ("m{q=\"0.25\",} 1\n", "m{q=\"0.25\"} 1"),
    ("m{q=\"0.8\", a=\"b\"} 1\n", "m{q=\"0.8\",a=\"b\"} 1"),
    ("m { q = \"1.0\" , a = \"b\" , } 1\n", "m{q=\"1.0\",a=\"b\"} 1"),
    ("m { q = \"2.0\" a = \"b\" } 1\n", "m{q=\"2.0\",a=\"b\"} 1"),
    ("m{q=\"1\"a=\"b\"}1\n", "m{q=\"1\",a=\"b\"} 1"),
    // Escapes, and what stands in a value as it is.
    ("m{a=\"\\\"bar\\\"\"} 1\n", "m{a=\"\\\"bar\\\"\"} 1"),
    ("m{a=\"x\\ny\\\\z\"} 1\n", "m{a=\"x\\ny\\\\z\"} 1"),
    ("m{a=\"\\x\\t\"} 1\n", "m{a=\"\\\\x\\\\t\"} 1"),
    ("m{a=\"\\\\\\\\n\"} 1\n", "m{a=\"\\\\\\\\n\"} 1"),
    ("m{a=\"\"} 1\n", "m{a=\"\"} 1"),
    ("m{a=\"x\ny\"} 1\n", "m{a=\"x\\ny\"} 1"),
    ("m{a=\"{},=#\"} 1\n", "m{a=\"{},=#\"} 1"),
    ("m{a=\"é€😀\"} 1\n", "m{a=\"é€😀\"} 1"),
    ("m{a=\"abc\0\"} 1\n", "m{a=\"abc\\0\"} 1"),
    ("m{le=\"10\"} 1\n", "m{le=\"10\"} 1"),
    // Names in quotes.
    ("{\"go.gc\",q=\"0\"} 4.5\n", "go.gc{q=\"0\"} 4.5"),
    ("{ \"go.gc\", q = \"0.9\", a= \"b\", } 4.5\n", "go.gc{q=\"0.9\",a=\"b\"} 4.5"),
    ("{\"go.gc_count\"} 99\n", "go.gc_count 99"),
    ("{\"go.gc_count\"}99\n", "go.gc_count 99"),
    ("{q=\"0.9\",\"http.status\",a=\"b\"} 8\n", "http.status{q=\"0.9\",a=\"b\"} 8"),
    ("m{\"a.b\"=\"c\"} 1\n", "m{a.b=\"c\"} 1"),
    (
        "{\"Heizöl 10€ \\\"x\\\" {a\\nb}\",\"strange©\\n'q' \\\"n\\\"\"=\"6\"} 10.0\n",
        "Heizöl 10€ \"x\" {a\nb}{strange©\n'q' \"n\"=\"6\"} 10",
    ),
    // Comments and empty lines.
    ("", ""),
    ("\n \n\t\n", ""),
    ("#", ""),
    ("#\n", ""),
    ("# comment with \\n and \\\n", ""),
    ("#HELP a b\n", ""),
    ("# Hrandom comment\n", ""),
    ("# TYPES a b\n", ""),
    ("# TYPE\n", ""),
    ("# HELP\n", ""),
    ("# UNIT a seconds\n", ""),
    ("# EOF\n", ""),
    ("# \u{1f600} \r\n", ""),
];

#[test]
fn text_is_read_as_prometheus_reads_it() {
    for (input, expected) in TEXT {
        assert_eq!(samples(&text(*input)).join("; "), *expected, "{input:?}");
    }
}

/// What text is refused, and at which line and column.
const TEXT_REFUSED: &[(&[u8], u64, u64, &str)] = &[
    (b"a", 1, 2, "expected a value"),
    (b"a\n", 1, 2, "expected a value"),
    (b"a{b='c'} 1\n", 1, 5, "expected a label value in quotes"),
    (b"a{b=\n", 1, 5, "expected a label value in quotes"),
    (b"a{b=\"x\\\n\"} 1\n", 1, 7, "expected a character behind the backslash"),
    (b"a{\xff=\"foo\"} 1\n", 1, 3, "expected a label name"),
    (b"a{b=\"x\xff\"} 1\n", 1, 7, "expected UTF-8"),
    (b"a{\"\xff\"=\"x\"} 1\n", 1, 4, "expected UTF-8"),
    (b"{\"\xff\"} 1\n", 1, 3, "expected UTF-8"),
    (b"# HELP a \xff\n", 1, 10, "expected UTF-8"),
    (b"{\"a\", \"b = \"c\"}", 1, 13, "expected \"=\" behind the label name"),
    (b"{\"a\",b\\nc=\"d\"} 1", 1, 7, "expected \"=\" behind the label name"),
    (b"{\"a\",\"b\"} 1", 1, 6, "expected one metric name"),
    (b"a{\"b\"} 1", 1, 3, "expected one metric name"),
    (b"{\"\"} 1", 1, 1, "expected a name that is not empty"),
    (b"a{\"\"=\"x\"} 1", 1, 3, "expected a name that is not empty"),
    (b"a true\n", 1, 3, "expected a value"),
    (b"something_weird{problem=\"", 1, 25, "expected a closing quote"),
    (b"empty_label_name{=\"\"} 0", 1, 18, "expected a label name"),
    (b"{A}0", 1, 3, "expected \"=\" behind the label name"),
    (b"a{,} 1\n", 1, 3, "expected a label name"),
    (b"a{b=\"c\",,} 1\n", 1, 9, "expected a label name"),
    (b"a{b=\"c\" 1\n", 1, 9, "expected a label name"),
    (b"a{b=\"c\"\n} 1\n", 1, 8, "expected a label name"),
    (b"a{0b=\"c\"} 1\n", 1, 3, "expected a label name"),
    (b"a{b:c=\"c\"} 1\n", 1, 4, "expected \"=\" behind the label name"),
    (b"foo 1_2\n", 1, 5, "expected a value"),
    (b"foo 0x1p-3\n", 1, 5, "expected a value"),
    (b"foo 0x1P-3\n", 1, 5, "expected a value"),
    (b"foo 0x10\n", 1, 5, "expected a value"),
    (b"foo 1e999\n", 1, 5, "expected a value"),
    (b"foo 0 1_2\n", 1, 8, "expected a new line behind the time"),
    (b"foo 0 1.5\n", 1, 8, "expected a new line behind the time"),
    (b"foo 0 -1\n", 1, 7, "expected a time or a new line"),
    (b"foo 0 9223372036854775808\n", 1, 7, "expected a time that fits 63 bits"),
    (b"foo 0 1 2\n", 1, 9, "expected a new line behind the time"),
    (b"foo 1 # {a=\"b\"} 1\n", 1, 7, "expected a time or a new line"),
    (b"{a=\"ok\"} 1", 1, 1, "expected a metric name"),
    (b"{} 1", 1, 1, "expected a metric name"),
    (b"9 1\n", 1, 1, "expected a metric name"),
    (b"ok 1\n=\n", 2, 1, "expected a metric name"),
    (b"a{a=\"1\",a=\"2\"} 1\n", 1, 9, "expected every label once"),
    (b"a{a=\"1\",\"a\"=\"1\"} 1\n", 1, 9, "expected every label once"),
    (b"a{__name__=\"b\"} 1\n", 1, 3, "expected every label once"),
    (b"# TYPE #\n#EOF\n", 1, 8, "expected a metric name"),
    (b"# HELP #\n#EOF\n", 1, 8, "expected a metric name"),
    (b"# HELP \n", 1, 8, "expected a metric name"),
    (b"# TYPE a\n", 1, 9, "expected counter, gauge, histogram, summary or untyped"),
    (b"# TYPE a info\n", 1, 10, "expected counter, gauge, histogram, summary or untyped"),
    (b"# TYPE a unknown\n", 1, 10, "expected counter, gauge, histogram, summary or untyped"),
    (b"# TYPE a  counter\n", 1, 10, "expected counter, gauge, histogram, summary or untyped"),
    (b"# TYPE a counter \n", 1, 10, "expected counter, gauge, histogram, summary or untyped"),
    // Carriage returns are not white space.
    (b"a 1\r\n", 1, 3, "expected a value"),
    (b"a 1 5\r\n", 1, 6, "expected a new line behind the time"),
    (b"# TYPE a counter\r\n", 1, 10, "expected counter, gauge, histogram, summary or untyped"),
    (b"\r\n", 1, 1, "expected a metric name"),
    // NUL bytes stand in label values and help, and nowhere else.
    (b"a{b=\0\"ssss\"} 1\n", 1, 5, "expected a label value in quotes"),
    (b"a{b=\"\0", 1, 5, "expected a closing quote"),
    (b"a{b\0=\"hiih\"}\t1", 1, 4, "expected \"=\" behind the label name"),
    (b"a\0{b=\"ddd\"} 1", 1, 2, "expected a value"),
    (b"a 0 1\0", 1, 6, "expected a new line behind the time"),
    (b"a 1\n\0b 1\n", 2, 1, "expected a metric name"),
    (b"{\"a\0\"} 1\n", 1, 2, "expected no NUL byte in a name"),
];

#[test]
fn text_is_refused_where_prometheus_refuses_it() {
    refused(TEXT_REFUSED, Dialect::Text);
}

/// OpenMetrics without its `# EOF`, and the sample that comes of it.
const OPEN: &[(&str, &str)] = &[
    ("", ""),
    ("a 1\n", "a 1"),
    ("go_goroutines 33 123.123\n", "go_goroutines 33 @123123"),
    ("a 1 -1.5\n", "a 1 @-1500"),
    ("a 1 1e3\n", "a 1 @1000000"),
    ("a 1 1520879607.789\n", "a 1 @1520879607789"),
    ("a{b=\"c\"} 1\n", "a{b=\"c\"} 1"),
    ("a{b=\"c\",d=\"e\"} 1\n", "a{b=\"c\",d=\"e\"} 1"),
    ("a{b=\"c\",} 1\n", "a{b=\"c\"} 1"),
    ("a{} 1\n", "a 1"),
    ("m{label=\"\\\"bar\\\"\"} 1\n", "m{label=\"\\\"bar\\\"\"} 1"),
    ("m{a=\"abc\0\"} 1\n", "m{a=\"abc\\0\"} 1"),
    ("ss{A=\"a\"} 0\n", "ss{A=\"a\"} 0"),
    ("m nan\n", "m NaN"),
    // Exemplars.
    ("h_bucket{le=\"+Inf\"} 1 # {id=\"x\"} 4\n", "h_bucket{le=\"+Inf\"} 1 # {id=\"x\"} 4"),
    ("h_count 1 # {id=\"x\",xx=\"yy\"} 4 123.123\n", "h_count 1 # {id=\"x\",xx=\"yy\"} 4 @123123"),
    ("c_total 17.0 1520879607.789 # {id=\"c\"} 5\n", "c_total 17 @1520879607789 # {id=\"c\"} 5"),
    ("c_total 17 # {} 5\n", "c_total 17 #  5"),
    ("c_total 17 # {id=\"a\\nb\"} 5\n", "c_total 17 # {id=\"a\\nb\"} 5"),
    (
        "c_total 1 # {\"id.thing\"=\"x\",other=\"hello\"} 4\n",
        "c_total 1 # {id.thing=\"x\",other=\"hello\"} 4",
    ),
    // Prometheus drops such an exemplar and keeps its sample.
    ("c_total 1 # {a=\"x\",a=\"y\"} 4\n", "c_total 1"),
    // Names in quotes.
    ("{\"go.gc\",quantile=\"0\"} 4.5\n", "go.gc{quantile=\"0\"} 4.5"),
    ("{q=\"0.9\",\"http.status\",a=\"b\"} 8\n", "http.status{q=\"0.9\",a=\"b\"} 8"),
    ("{\"a\nb\"} 8\n", "a\nb 8"),
];

#[test]
fn openmetrics_is_read_as_prometheus_reads_it() {
    for (input, expected) in OPEN {
        for end in ["# EOF", "# EOF\n"] {
            assert_eq!(samples(&open(format!("{input}{end}"))).join("; "), *expected, "{input:?}");
        }
    }
}

/// What OpenMetrics is refused, and at which line and column.
const OPEN_REFUSED: &[(&[u8], u64, u64, &str)] = &[
    (b"", 1, 1, "expected \"# EOF\" at the end"),
    (b"\n", 1, 1, "expected a metric name"),
    (b"metric", 1, 7, "expected a space and a value"),
    (b"metric 1", 1, 9, "expected \"# EOF\" at the end"),
    (b"metric 1\n", 2, 1, "expected \"# EOF\" at the end"),
    (b"metric_total 1 # {aa=\"bb\"} 4", 1, 29, "expected \"# EOF\" at the end"),
    (b"a\n#EOF\n", 1, 2, "expected a space and a value"),
    (b" a 1\n# EOF\n", 1, 1, "expected a metric name"),
    (b"9\n# EOF\n", 1, 1, "expected a metric name"),
    (b"# TYPE u untyped\n# EOF\n", 1, 10, "expected a metric type of OpenMetrics"),
    (b"# TYPE c counter \n# EOF\n", 1, 10, "expected a metric type of OpenMetrics"),
    (b"#  TYPE c counter\n# EOF\n", 1, 1, "expected # HELP, # TYPE, # UNIT or # EOF"),
    (b"#\tTYPE c counter\n# EOF\n", 1, 1, "expected # HELP, # TYPE, # UNIT or # EOF"),
    (b"# comment\n# EOF\n", 1, 1, "expected # HELP, # TYPE, # UNIT or # EOF"),
    (b"# TYPE \n# EOF\n", 1, 8, "expected a metric name"),
    (b"# TYPE m\n# EOF\n", 1, 9, "expected a space, text and a new line"),
    (b"# TYPE c  counter\n# EOF\n", 1, 10, "expected a metric type of OpenMetrics"),
    (b"# UNIT metric suffix\n# EOF\n", 1, 15, "expected a unit that the metric name ends in"),
    (b"# UNIT metricsuffix suffix\n# EOF\n", 1, 21, "expected a unit that the metric name ends in"),
    (b"# UNIT m suffix\n# EOF\n", 1, 10, "expected a unit that the metric name ends in"),
    (b"# UNIT \n# EOF\n", 1, 8, "expected a metric name"),
    (b"# UNIT m\n# EOF\n", 1, 9, "expected a space, text and a new line"),
    (b"# HELP \n# EOF\n", 1, 8, "expected a metric name"),
    (b"# HELP m\n# EOF\n", 1, 9, "expected a space, text and a new line"),
    (b"# HELP m x", 1, 9, "expected a space, text and a new line"),
    (b"# HELP m \xff\n# EOF\n", 1, 10, "expected UTF-8"),
    (b"a\t1\n# EOF\n", 1, 2, "expected a space and a value"),
    (b"a  1\n# EOF\n", 1, 3, "expected a number"),
    (b"a 1\t2\n# EOF\n", 1, 4, "expected a new line"),
    (b"a 1 \n# EOF\n", 1, 5, "expected a number"),
    (b"a 1 2 \n# EOF\n", 1, 6, "expected a new line"),
    (b"a 1 2 #\n# EOF\n", 1, 6, "expected a new line"),
    (b"a 1 1z\n# EOF\n", 1, 5, "expected a number"),
    (b"a 1 1 1\n# EOF\n", 1, 6, "expected a new line"),
    (b"a 1\r\n# EOF\n", 1, 3, "expected a number"),
    (b" # EOF\n", 1, 1, "expected a metric name"),
    (b"# EOF\na 1", 1, 6, "expected nothing behind \"# EOF\""),
    (b"# EOF\n\n", 1, 6, "expected nothing behind \"# EOF\""),
    (b"# EOFa 1", 1, 6, "expected nothing behind \"# EOF\""),
    (b"a{b='c'} 1\n# EOF\n", 1, 5, "expected a label value in quotes"),
    (b"a{,b=\"c\"} 1\n# EOF\n", 1, 3, "expected a label name"),
    (b"a{b=\"c\"d=\"e\"} 1\n# EOF\n", 1, 8, "expected \",\" or \"}\" behind the label"),
    (b"a{b=\"c\",,d=\"e\"} 1\n# EOF\n", 1, 9, "expected a label name"),
    (b"a{b=\"c\", d=\"e\"} 1\n# EOF\n", 1, 9, "expected a label name"),
    (b"a {b=\"c\"} 1\n# EOF\n", 1, 3, "expected a number"),
    (b"a{b=\n# EOF\n", 1, 5, "expected a label value in quotes"),
    (b"a{\xff=\"foo\"} 1\n# EOF\n", 1, 3, "expected a label name"),
    (b"a{b=\"\xff\"} 1\n# EOF\n", 1, 6, "expected UTF-8"),
    (b"{\"a\",\"b = \"c\"}\n# EOF\n", 1, 12, "expected \"=\" behind the label name"),
    (b"{\"a\",b\\nc=\"d\"} 1\n# EOF\n", 1, 7, "expected \"=\" behind the label name"),
    (b"a true\n", 1, 3, "expected a number"),
    (b"something_weird{problem=\"\n# EOF\n", 1, 25, "expected a closing quote in the line"),
    (b"empty_label_name{=\"\"} 0\n# EOF\n", 1, 18, "expected a label name"),
    (b"{A}0\n# EOF\n", 1, 3, "expected \"=\" behind the label name"),
    (b"a{}1\n# EOF\n", 1, 4, "expected a space and a value"),
    (b"foo 1_2\n\n# EOF\n", 1, 5, "expected a number"),
    (b"foo 0x1p-3\n\n# EOF\n", 1, 5, "expected a number"),
    (b"foo 0 1_2\n\n# EOF\n", 1, 7, "expected a number"),
    (b"{b=\"c\",} 1\n# EOF\n", 1, 1, "expected a metric name"),
    (b"a 1 NaN\n# EOF\n", 1, 5, "expected a time that is a finite number"),
    (b"a 1 -Inf\n# EOF\n", 1, 5, "expected a time that is a finite number"),
    (b"a 1 Inf\n# EOF\n", 1, 5, "expected a time that is a finite number"),
    (b"a{a=\"1\",a=\"2\"} 1\n# EOF\n", 1, 9, "expected every label once"),
    // Exemplars.
    (b"c_total 1 # {aa=bb}\n# EOF\n", 1, 17, "expected a label value in quotes"),
    (b"c_total 1 # {aa=\"bb\"}\n# EOF\n", 1, 22, "expected a space and the exemplar's value"),
    (b"c_total 1 # {aa=\"bb\"}", 1, 22, "expected a space and the exemplar's value"),
    (b"c_total 1 # {bb}", 1, 16, "expected \"=\" behind the label name"),
    (b"c_total 1 # {bb, a=\"dd\"}", 1, 16, "expected \"=\" behind the label name"),
    (b"c_total 1 # {\"bb\"} 1\n# EOF\n", 1, 18, "expected \"=\" behind the label name"),
    (b"c_total 1 # {aa=\"bb\",,cc=\"dd\"} 1", 1, 22, "expected a label name"),
    (b"c_total 1 # {aa=\"bb\"} 1_2", 1, 23, "expected a number"),
    (b"c_total 1 # {aa=\"bb\"} 0x1p-3", 1, 23, "expected a number"),
    (b"c_total 1 # {aa=\"bb\"} true", 1, 23, "expected a number"),
    (b"c_total 1 # {aa=\"bb\",cc=}", 1, 25, "expected a label value in quotes"),
    (b"c_total 1 # {aa=\\\"\xff\\\"} 9.0", 1, 17, "expected a label value in quotes"),
    (b"c_total 1 # {aa=\"\xff\"} 9.0", 1, 18, "expected UTF-8"),
    (b"h_bucket 1 # {aa=\"bb\"} 4 NaN", 1, 26, "expected a time that is a finite number"),
    (b"h_bucket 1 # {aa=\"bb\"} 4 -Inf", 1, 26, "expected a time that is a finite number"),
    (b"h_bucket 1 # {aa=\"bb\"} 4 1 1\n# EOF\n", 1, 27, "expected a new line"),
    (b"c_total 1 #{a=\"b\"} 1\n# EOF\n", 1, 11, "expected a number"),
];

#[test]
fn openmetrics_is_refused_where_prometheus_refuses_it() {
    refused(OPEN_REFUSED, Dialect::OpenMetrics);
}

fn refused(cases: &[(&[u8], u64, u64, &str)], dialect: Dialect) {
    for (input, line, column, what) in cases {
        let shown = input.escape_ascii();
        match read(*input, dialect) {
            Ok(page) => panic!("\"{shown}\" is read as {:?}", samples(&page)),
            Err(Failure::Malformed { line: at, column: behind, what: said }) => {
                assert_eq!(
                    (at, behind, said.split(", but").next()),
                    (*line, *column, Some(*what)),
                    "\"{shown}\""
                );
            }
            Err(other) => panic!("\"{shown}\": {other}"),
        }
    }
}

#[test]
fn a_person_is_told_where_and_what() {
    let failure = read("ok 1\nfoo{bar='baz'} 1\n", Dialect::Text).expect_err("malformed");
    assert_eq!(
        failure.to_string(),
        "line 2, column 9: expected a label value in quotes, but here is \"\\'baz\\'} 1\\n\""
    );
    let failure = read("ok 1\n", Dialect::OpenMetrics).expect_err("malformed");
    assert_eq!(
        failure.to_string(),
        "line 2, column 1: expected \"# EOF\" at the end, but the body ends here"
    );
}

#[test]
fn an_exemplar_has_at_most_128_characters() {
    let page = |length: usize| {
        let value = "é".repeat(length - 2);
        open(format!("a_total 1 # {{id=\"{value}\"}} 2\n# EOF\n"))
    };
    let kept = page(128);
    assert_eq!(kept.exemplars_of(&kept.samples[0]).len(), 1);
    let dropped = page(129);
    assert!(dropped.exemplars_of(&dropped.samples[0]).is_empty() && dropped.exemplars.is_empty());
    assert_eq!(samples(&dropped), ["a_total 1"]);
}
