//! Requests that two readers could understand differently (research/anchors.md §4.5, and what the field knows): each is refused
//! and its connection closed before anything of it went on, or forwarded as exactly the requests that it is. h11 is the judge.

use harness::{
    Cut, Driver, End, Engine, Folder, Origin, PATIENCE, Setup, Tool, answer, hex, on_each_driver, python, script,
};

/// What is due.
enum Verdict {
    /// Answered with this status and closed; the origin saw nothing.
    Refused(u16),
    /// Answered with this status and closed; the origin saw a beginning and no end.
    Broken(u16),
    /// The origin got exactly requests with these bodies, and the client as many responses.
    Forwarded(&'static [&'static str]),
    /// The first requests were forwarded, with these bodies; the next was answered with this status and closed.
    ForwardedThenRefused(&'static [&'static str], u16),
}

use Verdict::{Broken, Forwarded, ForwardedThenRefused, Refused};

type Row = (&'static [u8], Verdict);

const ORDINARY: &[Row] = &[
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t 5 \t\r\n\r\nhello", Forwarded(&["hello"])),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tChunked\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Forwarded(&["hello"])),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00005;a=b;c=\"d\"\r\nhello\r\n0000\r\nX: y\r\n\r\n", Forwarded(&["hello"])),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Forwarded(&[""])),
    (b"GET / HTTP/1.0\r\n\r\n", Forwarded(&[""])),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    (b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    // A request within content is content.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n", Forwarded(&["GET /admin HTTP/1.1\r\nHost: a\r\n"])),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&["hello", ""])),
    (b"DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", Forwarded(&["x"])),
    // Pipelining, with and without content.
    (b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&["", "", ""])),
    (b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&["x", "y", ""])),
    (b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    // The smuggled prefix: what follows a whole request is judged as a request.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloSMUGGLED", ForwardedThenRefused(&["hello"], 400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nXYZ\r\n\r\n", ForwardedThenRefused(&[""], 400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x00\x00\x00", ForwardedThenRefused(&[""], 400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", ForwardedThenRefused(&[""], 400)),
];

const FRAMING: &[Row] = &[
    // Content-Length and Transfer-Encoding together, in each order (CL.TE, TE.CL).
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\ntransfer-encoding: x\r\n\r\nabcd", Refused(400)),
    // Lengths.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 6\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5;a=b\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n0123456789", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4294967296000000000000\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\n Content-Length: 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent\x00-Length: 5\r\n\r\nhello", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\x00\r\n\r\nhello", Refused(400)),
    // An underscore makes another field, which means nothing to us and nothing to the origin.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n", Forwarded(&[""])),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length-: 5\r\n\r\n", Forwarded(&[""])),
    // Codings (TE.TE).
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    // A framing field that Connection names is still the framing (it must not be removed and leave the content behind).
    (b"POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello", Forwarded(&["hello"])),
    (b"POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Forwarded(&["hello"])),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host, close\r\n\r\n", Forwarded(&[""])),
];

const CHUNKS: &[Row] = &[
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5_0\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nG\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000005\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\x00\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\r\nhello\r\n0\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX : y\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nno colon\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", Broken(400)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nHost: b\r\n\r\n", Broken(400)),
];

const LINES: &[Row] = &[
    (b"GET / HTTP/1.1\nHost: a\n\n", Refused(400)),
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n \r\n\r\n", Refused(400)),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET / \r\nHost: a\r\n\r\n", Refused(505)),
    (b"GET /\r\n\r\n", Refused(400)),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(505)),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(505)),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused(505)),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", Refused(505)),
    (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refused(400)),
    (b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: y\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefghijklmnop", Refused(400)),
    // Nearly what HTTP/2 begins with.
    (b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", Refused(505)),
];

const HOSTS: &[Row] = &[
    (b"GET / HTTP/1.1\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Refused(400)),
    (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", Refused(400)),
    (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET @a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET /#fragment HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    (b"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&[""])),
    // Expectations.
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\nhello", Refused(417)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\nContent-Length: 5\r\n\r\nhello", Refused(417)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-CONTINUE\r\nContent-Length: 5\r\n\r\nhello", Forwarded(&["hello"])),
    (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", Forwarded(&[""])),
    (b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", Forwarded(&["hello"])),
    // An offer to upgrade that the origin does not take: what follows is the next request, not another protocol.
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&["", ""])),
    (b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(&["hello", ""])),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", Forwarded(&[""])),
];

on_each_driver! {
    fn ordinary_requests_arrive_as_they_are(driver) {
        judge(driver, ORDINARY);
    }

    fn framing(driver) {
        judge(driver, FRAMING);
    }

    fn chunks(driver) {
        judge(driver, CHUNKS);
    }

    fn lines(driver) {
        judge(driver, LINES);
    }

    fn hosts_expectations_and_upgrades(driver) {
        judge(driver, HOSTS);
    }

    /// Heads at and beyond each limit, whole and in pieces.
    fn limits(driver) {
        let (engine, _origin) = start(driver);
        let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "b: c\r\n".repeat(count));
        let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
        let head = |length: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nb: {}\r\n\r\n", "x".repeat(length - 32));
        for (request, status) in [
            (fields(90), 200),
            (fields(101), 431),
            (target(7_000), 200),
            (target(8_001), 414),
            (head(12_000), 200),
            (head(16_385), 431),
            (head(100_000), 431),
            (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "X".repeat(40)), 501),
            (format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(2_000)), 400),
            (format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}\r\n", "X: yyyyyyyyyyyyyyyy\r\n".repeat(1_000)), 431),
        ] {
            for piece in [usize::MAX, 1_000, 61] {
                let mut client = engine.client();
                for piece in request.as_bytes().chunks(piece) {
                    // A refusal may come before the last piece.
                    if client.try_send(piece).is_err() {
                        break;
                    }
                }
                let shown = &request[..request.len().min(60)];
                let response = client.response(false).unwrap_or_else(|cut| panic!("{shown}: {cut}"));
                assert_eq!(response.status(), status, "{shown}… of {} in pieces of {piece}", request.len());
                assert_eq!(response.is_closing(), status != 200, "{shown}");
            }
        }
    }

    /// Messages that h11 made, and what becomes of them when some of their bytes are changed: whatever the engine lets
    /// through, both sides of it are HTTP.
    fn mutations_of_h11_messages(driver) {
        let made = Tool::new(python(), 20).args([script("generate.py")]).args(["--seed", "7", "--count", "400"]).succeed();
        let (engine, origin) = start(driver);
        let mut cases = Cases::default();
        let mut answered = 0;
        for (number, line) in made.text().lines().enumerate() {
            let request = harness::unhex(line);
            let mut client = engine.client();
            if client.try_send(&request).is_err() {
                continue;
            }
            client.half_close();
            let (answer, end) = client.rest();
            assert_ne!(end, End::Silent, "no end to {}", request.escape_ascii());
            let finals = answer.windows(9).filter(|window| window.starts_with(b"HTTP/1.1 ") ).count();
            answered += usize::from(finals > 0);
            // Interim responses are h11's to pass over; here only 100 can occur, and is not counted.
            let interim = answer.windows(12).filter(|window| *window == b"HTTP/1.1 100").count();
            cases.responses(&format!("answer {number}"), &answer, finals - interim);
        }
        assert!(answered > 300, "only {answered} were answered at all");
        for (number, raw) in origin.received().iter().enumerate() {
            // One connection, one request: its content is what our own strict reader saw, or it broke off.
            if let Some(body) = whole(raw) {
                cases.requests(&format!("connection {number}"), raw, &[&body]);
            }
        }
        cases.judge();
        engine.until_idle();
    }
}

fn start(driver: Driver) -> (Engine, Origin) {
    let origin = Origin::answering(|request| Some(answer(&request.body)));
    // One request a connection: what a connection received is one request, or an attack that went through.
    let engine = Setup::new(driver).origin(&origin).pool_line("reuse.max_idle = 0").start();
    (engine, origin)
}

/// Sends each row whole, in two pieces at each of a few places, and byte by byte.
fn judge(driver: Driver, rows: &[Row]) {
    let (engine, origin) = start(driver);
    let mut cases = Cases::default();
    for (text, verdict) in rows {
        let text: &[u8] = text;
        let middle = text.len() / 2;
        let ways: [Vec<&[u8]>; 4] = [
            vec![text],
            vec![&text[..middle], &text[middle..]],
            vec![&text[..text.len() - 1], &text[text.len() - 1..]],
            text.chunks(1).collect(),
        ];
        for (way, pieces) in ways.iter().enumerate() {
            let name = format!("{} (way {way})", text.escape_ascii());
            row(&engine, &origin, &name, pieces, verdict, &mut cases);
        }
    }
    cases.judge();
    engine.until_idle();
}

fn row(engine: &Engine, origin: &Origin, name: &str, pieces: &[&[u8]], verdict: &Verdict, cases: &mut Cases) {
    let before = origin.accepted();
    let mut client = engine.client();
    for piece in pieces {
        if client.try_send(piece).is_err() {
            break;
        }
    }
    let (bodies, status): (&[&str], Option<u16>) = match verdict {
        Forwarded(bodies) => (bodies, None),
        ForwardedThenRefused(bodies, status) => (bodies, Some(*status)),
        Refused(status) | Broken(status) => (&[], Some(*status)),
    };
    for body in bodies {
        let response = client.response(false).unwrap_or_else(|cut| panic!("{name}: no response: {cut}"));
        assert_eq!(response.status(), 200, "{name}: {}", response.text());
        assert_eq!(response.text(), *body, "{name}");
    }
    if matches!(verdict, ForwardedThenRefused(..) | Forwarded(_)) {
        // Half of a request may be waited for; an end tells that no more comes.
        client.half_close();
    }
    if let Some(status) = status {
        refused(name, &mut client, status, matches!(verdict, ForwardedThenRefused(..)));
    }
    let (rest, end) = client.rest();
    assert!(rest.is_empty(), "{name}: more responses than requests: {}", rest.escape_ascii());
    assert_ne!(end, End::Silent, "{name}: the connection stays open");
    drop(client);

    engine.until_metric("requests_open", 0);
    let received = &origin.received()[before..];
    match verdict {
        Refused(_) => assert!(received.iter().all(Vec::is_empty), "{name}: the origin got {received:?}"),
        Broken(_) => {
            for raw in received {
                assert!(whole(raw).is_none(), "{name}: the origin got a whole request: {}", raw.escape_ascii());
            }
        }
        Forwarded(bodies) | ForwardedThenRefused(bodies, _) => {
            assert_eq!(received.len(), bodies.len(), "{name}: requests at the origin");
            for (raw, body) in received.iter().zip(*bodies) {
                cases.requests(name, raw, &[body.as_bytes()]);
            }
        }
    }
}

/// The answer is this status, and the end.
fn refused(name: &str, client: &mut harness::Client, status: u16, may_be_cut: bool) {
    match client.response(false) {
        Ok(response) => {
            assert_eq!(response.status(), status, "{name}: {}", response.text());
            assert!(response.is_closing(), "{name}: {}", response.head.escape_ascii());
        }
        // A smuggled prefix that is no whole request may be left without an answer.
        Err(Cut::Closed(0)) if may_be_cut => {}
        Err(cut) => panic!("{name}: not refused but {cut}"),
    }
}

/// The body of the one whole request that `raw` begins with, as our own strict reader sees it.
fn whole(raw: &[u8]) -> Option<Vec<u8>> {
    let (mut from, to) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    std::io::Write::write_all(&mut from, raw).expect("room for one request");
    drop(from);
    let mut wire = harness::Wire::new(to).expect("deadlines").within(PATIENCE);
    // Without its Expect, or the reader would answer to nobody.
    let head = wire.head().ok()?;
    let text = String::from_utf8_lossy(&head.head).replace("100-continue", "none").replace("100-CONTINUE", "none");
    let mut again = text.into_bytes();
    again.append(&mut wire.unread);
    let (rest, _) = wire.rest();
    again.extend(rest);
    let (mut from, to) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    std::io::Write::write_all(&mut from, &again).expect("room for one request");
    drop(from);
    harness::Wire::new(to).ok()?.request().ok().flatten().map(|request| request.body)
}

/// What h11 is to judge.
#[derive(Default)]
struct Cases(String);

impl Cases {
    fn requests(&mut self, name: &str, raw: &[u8], bodies: &[&[u8]]) {
        let bodies: Vec<String> = bodies.iter().map(|body| hex(body)).collect();
        let case = serde_json::json!({"name": name, "side": "request", "raw": hex(raw), "bodies": bodies});
        self.0 += &format!("{case}\n");
    }

    fn responses(&mut self, name: &str, raw: &[u8], count: usize) {
        let methods = vec!["GET"; count];
        let case = serde_json::json!({"name": name, "side": "response", "raw": hex(raw), "methods": methods});
        self.0 += &format!("{case}\n");
    }

    fn judge(&self) {
        if self.0.is_empty() {
            return;
        }
        let folder = Folder::new();
        let cases = folder.write("cases", &self.0);
        let ran = Tool::new(python(), 60).args([script("check.py")]).input(&cases).run();
        assert_eq!(ran.code, Some(0), "h11 disagrees:\n{}\n{}", ran.text(), ran.err);
    }
}
