//! Tests of the joiner.
#[test]
fn zz() {
    let l = b"2026/11/22 14:11:44 http: panic serving 10.0.3.7:52144: no stock";
    eprintln!("{:?}", crate::logs::parse::parse(l, crate::data::batch::Fields::LEVEL));
    panic!()
}
