//! Families: what `# TYPE`, `# HELP` and `# UNIT` say, and which samples are theirs.

use nodewick::scrape::exposition::{Limits, NORMAL_NAN};
use nodewick::scrape::{Dialect, Failure};

use crate::support::{body, families, families_of_samples, limits, open, read_within, samples, text, used};

#[test]
fn help_of_text_is_unescaped_and_may_be_empty() {
    let page = text(
        "# HELP go_gc_duration_seconds A summary of the GC invocation durations.\n\
         # \tTYPE go_gc_duration_seconds summary\n\
         # HELP nohelp1\n\
         # HELP nohelp2 \n\
         #\tHELP\tspaces  two\n\
         # HELP escapes a\\nb \\\\ \\\" \\x\n\
         # HELP nul foo\0bar\n\
         # HELP \"quoted.name\" q\n\
         # TYPE some_counter_total counter\n\
         # HELP some_counter_total Help after type.\n\
         # TYPE nothing untyped\n",
    );
    assert_eq!(
        families(&page),
        [
            "go_gc_duration_seconds|Summary|A summary of the GC invocation durations.|",
            "nohelp1|Unknown||",
            "nohelp2|Unknown||",
            "spaces|Unknown| two|",
            "escapes|Unknown|a\nb \\ \\\" \\x|",
            "nul|Unknown|foo\0bar|",
            "quoted.name|Unknown|q|",
            "some_counter_total|Counter|Help after type.|",
            "nothing|Unknown||",
        ]
    );
}

#[test]
fn metadata_of_openmetrics_is_read() {
    let page = open(
        "# HELP go_gc_duration_seconds A summary.\n\
         # TYPE go_gc_duration_seconds summary\n\
         # UNIT go_gc_duration_seconds seconds\n\
         # HELP nohelp1 \n\
         # HELP help2 escape \\ \\n \\\\ \\\" \\x chars\n\
         # UNIT nounit \n\
         # TYPE gh gaugehistogram\n\
         # TYPE ii info\n\
         # TYPE ss stateset\n\
         # TYPE un unknown\n\
         # UNIT \"go.gc_seconds\" seconds\n\
         # EOF\n",
    );
    assert_eq!(
        families(&page),
        [
            "go_gc_duration_seconds|Summary|A summary.|seconds",
            "nohelp1|Unknown||",
            "help2|Unknown|escape \\ \n \\ \" \\x chars|",
            "nounit|Unknown||",
            "gh|GaugeHistogram||",
            "ii|Info||",
            "ss|StateSet||",
            "un|Unknown||",
            "go.gc_seconds|Unknown||seconds",
        ]
    );
}

#[test]
fn a_sample_finds_its_family_by_its_suffix() {
    let page = open(
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\nh_created 1\nh_total 1\n\
         # TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 1\ng_gsum 1\ng_gcount 1\n\
         # TYPE s summary\ns{quantile=\"1\"} 1\ns_sum 1\ns_count 1\ns_bucket 1\n\
         # TYPE c counter\nc_total 1\nc_created 1\nc_sum 1\n\
         # TYPE i info\ni_info{v=\"1\"} 1\n\
         # TYPE st stateset\nst{st=\"a\"} 1\n\
         # TYPE ga gauge\nga 1\nga_count 1\n\
         h_sum{again=\"1\"} 2\nga 3\nalone 1\nalone{a=\"b\"} 1\n# EOF\n",
    );
    assert_eq!(
        families_of_samples(&page),
        [
            "h", "h", "h", "h", "h_total", "g", "g", "g", "s", "s", "s", "s_bucket", "c", "c", "c_sum", "i",
            "st", "ga", "ga_count", "h", "ga", "alone", "alone",
        ]
    );
    assert_eq!(page.families.len(), 12);
}

#[test]
fn a_family_is_one_however_its_metadata_are_strewn() {
    let page = text(
        "# HELP a first\n# HELP b second\nlate 1\n# TYPE a counter\n# TYPE b histogram\n# TYPE late gauge\n\
         b_count 1\na 2\n# HELP \"a\" third\n",
    );
    assert_eq!(families(&page), ["a|Counter|third|", "b|Histogram|second|", "late|Gauge||"]);
    assert_eq!(families_of_samples(&page), ["late", "b", "a"]);
}

#[test]
fn a_thousand_families_are_told_apart() {
    let metadata: String = (0..1000).map(|n| format!("# TYPE family_{n} counter\n")).collect();
    let series: String = (0..1000).rev().map(|n| format!("family_{n} {n}\n")).collect();
    let page = text(metadata + &series);
    assert_eq!(page.families.len(), 1000);
    for sample in &page.samples {
        assert_eq!(page.text(sample.name), page.text(page.families[sample.family as usize].name));
    }
}

#[test]
fn a_scraped_nan_is_never_the_mark_of_staleness() {
    assert_eq!(text("a NaN\n").samples[0].value.to_bits(), NORMAL_NAN);
    assert_eq!(open("a nan # {} NaN\n# EOF\n").exemplars[0].value.to_bits(), NORMAL_NAN);
}

#[test]
fn every_limit_holds_and_names_its_key() {
    let limits = Limits { samples: 3, labels: 2, name: 8, label_value: 4 };
    let fits = "# TYPE a counter\na_totals{abcdefgh=\"1234\",b=\"\"} 1\nb 2\n";
    assert!(read_within(fits, Dialect::Text, &limits).is_ok());
    for (input, key, limit) in [
        ("a 1\na 1\na 1\na 1\n", "sample_limit", 3),
        ("# HELP a\n# HELP b\n# HELP c\n# HELP d\n", "sample_limit", 3),
        ("a{b=\"\",c=\"\",d=\"\"} 1\n", "label_limit", 2),
        ("a{bcdefghij=\"\"} 1\n", "name_limit", 8),
        ("abcdefghi 1\n", "name_limit", 8),
        ("# TYPE abcdefghi counter\n", "name_limit", 8),
        ("a{b=\"12345\"} 1\n", "label_value_limit", 4),
    ] {
        match read_within(input, Dialect::Text, &limits) {
            Err(Failure::Limit { key: named, limit: at, .. }) => {
                assert_eq!((named, at), (key, limit), "{input}")
            }
            other => panic!("{input}: {other:?}"),
        }
    }
}

#[test]
fn an_escaped_value_is_measured_as_it_is_meant() {
    let limits = Limits { label_value: 2, ..limits() };
    assert!(read_within("a{b=\"\\n\\n\"} 1\n", Dialect::Text, &limits).is_ok());
}

#[test]
fn a_body_becomes_the_arena_without_a_copy() {
    let bytes = b"a{b=\"c\"} 1\n".to_vec();
    let place = bytes.as_ptr();
    let page = text(bytes);
    assert_eq!(page.arena.as_ptr(), place);
    assert_eq!(page.arena, b"a{b=\"c\"} 1\n");
}

#[test]
fn nothing_of_an_earlier_page_is_left() {
    let (mut parser, mut page) = used();
    let later = "other{x=\"\\\\\"} 3\nbefore_total 4\n";
    parser.parse(body(later, Dialect::Text), &limits(), &mut page).expect("well-formed");
    assert_eq!(samples(&page), samples(&text(later)));
    assert_eq!(families(&page), ["other|Unknown||", "before_total|Unknown||"]);
    // Nor of one that failed half-way.
    parser.parse(body("before 1\nx{", Dialect::Text), &limits(), &mut page).expect_err("malformed");
    parser.parse(body("last 1\n", Dialect::Text), &limits(), &mut page).expect("well-formed");
    assert_eq!(
        (samples(&page), families(&page)),
        (vec!["last 1".to_owned()], vec!["last|Unknown||".to_owned()])
    );
}
