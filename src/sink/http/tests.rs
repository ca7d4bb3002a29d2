//! Facts about one endpoint's client that need no server, and a few that need a small one.

use futures_util::FutureExt as _;

use super::*;

/// What a future that waits for nothing gives.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it waits for nothing")
}

fn config(toml_text: &str) -> Config {
    toml::from_str(toml_text).expect("valid config")
}

#[test]
fn credentials_never_travel_in_clear_text() {
    let basic = config("[auth]\nusername = 'u'\npassword = 'canary'");
    assert!(matches!(Client::new("http://loki.example.com", &basic), Err(Error::ClearText { .. })));
    assert!(Client::new("https://loki.example.com", &basic).is_ok());
    assert!(Client::new("http://127.0.0.1:3100", &basic).is_ok());
    assert!(Client::new("http://[::1]:3100", &basic).is_ok());
    let error =
        Client::new("http://u:canary@loki.example.com/p", &Config::default()).expect_err("clear text");
    assert_eq!(
        error.to_string(),
        "credentials for http://loki.example.com/p would travel in clear text; use https, or remove them"
    );
    let header = config("[headers]\nX-Api-Key = 'canary'");
    assert!(matches!(Client::new("http://loki.example.com", &header), Err(Error::ClearText { .. })));
    let plain = config("[headers]\nX-Scope-OrgID = 'a'");
    assert!(Client::new("http://loki.example.com", &plain).is_ok());
}

#[test]
fn skip_verify_excludes_credentials() {
    let both = config("tls.insecure_skip_verify = true\nauth.token = 'canary'");
    assert!(matches!(Client::new("https://x.example.com", &both), Err(Error::Unverified { .. })));
    let alone = config("tls.insecure_skip_verify = true");
    assert!(Client::new("https://x.example.com", &alone).is_ok());
}

#[test]
fn secrets_are_never_shown() {
    let all = config("proxy = 'http://u:canary@p:1'\n[auth]\ntoken = 'canary'\n[headers]\na = 'canary'");
    let client = Client::new("https://x.example.com", &all).expect("valid");
    let shown = format!("{all:?} {client:?} {}", toml::to_string(&all).expect("serializes"));
    assert!(!shown.contains("canary"), "{shown}");
    let error = Client::new("ftp://u:canary@host/x?key=canary", &Config::default()).expect_err("scheme");
    assert_eq!(
        error.to_string(),
        "\"ftp://host/x\" is not an endpoint: it needs http:// or https://; write it like https://logs.example.com"
    );
}

#[test]
fn contradicting_credentials_are_named() {
    for (text, why) in [
        ("auth.username = 'u'", "auth: username needs password or password_file"),
        ("auth.password = 'p'", "auth: password needs username"),
        (
            "auth.username = 'u'\nauth.password = 'p'\nauth.token = 't'",
            "auth: more than one kind of credential; keep one of username and password, a token, or oauth2",
        ),
        ("auth.token = 't'\nauth.token_file = '/t'", "auth: token and token_file exclude each other"),
    ] {
        let error = Client::new("https://x.example.com", &config(text)).expect_err(text);
        assert_eq!(error.to_string(), why);
    }
}

#[test]
fn user_information_becomes_basic_authentication() {
    let client =
        Client::new("https://Aladdin:open%20sesame@x.example.com/a", &Config::default()).expect("valid");
    let headers = now(client.headers()).expect("no file");
    assert_eq!(headers[AUTHORIZATION], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(client.shown_url(), "https://x.example.com/a");
    assert_eq!(client.url().to_string(), "https://x.example.com/a");
}

#[test]
fn what_an_answer_repeats_of_a_secret_is_taken_out() {
    let both = config("[auth]\ntoken = 'canary'\n[headers]\nX-Api-Key = 'k3y!'\nX-Short = 'no'");
    let client = Client::new("https://x.example.com", &both).expect("valid");
    let secrets = secrets(&now(client.headers()).expect("no file"));
    let said = Bytes::from_static(b"no: Bearer canary, canary and k3y!; canary");
    assert_eq!(without(said, &secrets), "no: <redacted>, <redacted> and <redacted>; <redacted>");
    assert_eq!(without(Bytes::from_static(b"no"), &secrets), "no");
}

#[test]
fn base64_pads() {
    for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(auth::base64(plain.as_bytes()), coded);
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let headers =
        |value: &str| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).expect("ascii"))]);
    assert_eq!(retry_after(&headers("120")), Some(Duration::from_secs(120)));
    assert_eq!(retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT")), Some(Duration::ZERO));
    let later = retry_after(&headers("Sun, 06 Nov 2195 08:49:37 GMT")).expect("a date");
    assert!(later > Duration::from_secs(1_000_000_000), "{later:?}");
    assert_eq!(retry_after(&headers("soon")), None);
}

#[test]
fn a_token_file_is_read_again_after_distrust_and_kept_when_it_vanishes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "one\n").expect("written");
    let settings =
        Config { auth: Auth { token_file: Some(path.clone()), ..Auth::default() }, ..Config::default() };
    let client = Client::new("https://x.example.com", &settings).expect("valid");
    let token = || now(client.headers()).expect("readable")[AUTHORIZATION].clone();
    assert_eq!(token(), "Bearer one");
    std::fs::write(&path, "two\n").expect("written");
    assert_eq!(token(), "Bearer one", "not looked at again so soon");
    client.distrust_credentials();
    assert_eq!(token(), "Bearer two");
    std::fs::remove_file(&path).expect("removed");
    client.distrust_credentials();
    assert_eq!(token(), "Bearer two", "the last good one serves");
}

#[test]
fn loopback_is_never_proxied() {
    let proxied = config("proxy = 'http://proxy.example.com:3128'");
    let route = |url: &str| Client::new(url, &proxied).expect("valid").route;
    assert!(matches!(route("http://127.0.0.1:1"), dial::Route::Direct));
    assert!(matches!(route("http://x.example.com"), dial::Route::Forward { .. }));
    assert!(matches!(route("https://x.example.com"), dial::Route::Tunnel { .. }));
    let socks = config("proxy = 'socks5://proxy.example.com'");
    assert!(Client::new("https://x.example.com", &socks).is_err());
}
