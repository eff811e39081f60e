//! The head of a request as a browser sends it: what real clients say, where load generators say a line or two.

/// Fields beside Host, of a navigation within a site whose cookies are many: 1.3 KB.
pub(crate) const FIELDS: &[(&str, &str)] = &[
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
    ),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9,de;q=0.8"),
    ("cache-control", "max-age=0"),
    ("sec-ch-ua", r#""Chromium";v="131", "Not_A Brand";v="24""#),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", r#""Linux""#),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-user", "?1"),
    ("upgrade-insecure-requests", "1"),
    (
        "referer",
        "https://www.example.com/articles/2026/11/a-title-of-some-length?utm_source=newsletter&utm_medium=email",
    ),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef0123456789abcdef; visitor=GA1.2.1234567890.1234567890; theme=dark; consent=eyJhIjoxLCJiIjoyLCJjIjozfQ==; cart=a1b2c3d4e5f6a7b8c9d0; test=variant-b; csrf=ZXhhbXBsZS1jc3JmLXRva2VuLWZvci1hLXRlc3Q",
    ),
    ("priority", "u=0, i"),
    ("dnt", "1"),
];

/// The same as lines.
pub(crate) fn lines() -> String {
    FIELDS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}
