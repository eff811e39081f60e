//! What RFC 9114 §§4-7 and RFC 9204 oblige a server to reject, said by h3i.

use std::net::SocketAddr;

use h3i::actions::h3::{
    Action, StreamEvent, StreamEventType, WaitType, send_headers_frame, send_headers_frame_literal,
};
use h3i::client::connection_summary::ConnectionSummary;
use h3i::client::sync_client;
use h3i::config::Config;
use h3i::frame::H3iFrame;
use h3i::quiche::ConnectionError;
use h3i::quiche::h3::Header;
use h3i::quiche::h3::frame::Frame;

use crate::{NAME, Outcome};

/// The stream of the request, and ours of each kind.
const REQUEST: u64 = 0;
const CONTROL: u64 = 2;
const SECOND: u64 = 6;
const THIRD: u64 = 10;

const CONTROL_TYPE: u64 = 0;
const PUSH_TYPE: u64 = 1;
const ENCODER_TYPE: u64 = 2;
const DECODER_TYPE: u64 = 3;

const NO_ERROR: u64 = 0x100;
const STREAM_CREATION: u64 = 0x103;
const CLOSED_CRITICAL: u64 = 0x104;
const UNEXPECTED: u64 = 0x105;
const FRAME_ERROR: u64 = 0x106;
const ID_ERROR: u64 = 0x108;
const SETTINGS_ERROR: u64 = 0x109;
const MISSING_SETTINGS: u64 = 0x10A;
const REQUEST_INCOMPLETE: u64 = 0x10D;
const MESSAGE_ERROR: u64 = 0x10E;
const DECOMPRESSION_FAILED: u64 = 0x200;
const ENCODER_STREAM: u64 = 0x201;
const DECODER_STREAM: u64 = 0x202;

/// How long an engine that says nothing is listened to.
const IDLE_MILLIS: u64 = 5_000;

/// What must come back.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// CONNECTION_CLOSE with this code.
    Closed(u64),
    /// RESET_STREAM with this code, on the request's stream; the connection lives.
    Reset(u64),
    /// A response with this status.
    Status(String),
    Silence,
}

#[derive(Clone)]
struct Row {
    what: &'static str,
    actions: Vec<Action>,
    right: Vec<Verdict>,
}

/// Each row on a connection of its own.
pub fn play(address: SocketAddr) -> Outcome<()> {
    for row in rows() {
        let config = Config::new()
            .with_host_port(format!("{NAME}:{}", address.port()))
            .with_connect_to(address.to_string())
            .verify_peer(false)
            .with_idle_timeout(IDLE_MILLIS)
            .build()?;
        let summary = sync_client::connect(config, row.actions, None).map_err(|error| format!("{error:?}"))?;
        let got = verdict(&summary);
        if !row.right.contains(&got) {
            return Err(format!("{}: {got:x?}, and right is one of {:x?}", row.what, row.right).into());
        }
    }
    Ok(())
}

fn verdict(summary: &ConnectionSummary) -> Verdict {
    if let Some(error) = summary.conn_close_details.peer_error()
        && error.is_app
        && error.error_code != NO_ERROR
    {
        return Verdict::Closed(error.error_code);
    }
    let frames = summary.stream_map.stream(REQUEST);
    let told = frames.iter().find_map(|frame| match frame {
        H3iFrame::ResetStream(reset) => Some(Verdict::Reset(reset.error_code)),
        H3iFrame::Headers(head) => {
            Some(Verdict::Status(String::from_utf8_lossy(head.status_code().map_or(b"", |code| code)).into_owned()))
        }
        H3iFrame::QuicheH3(_) => None,
    });
    told.unwrap_or(Verdict::Silence)
}

fn rows() -> Vec<Row> {
    let mut rows = [frames(), sections(), messages(), reserved()].concat();
    // Lest everything above be right because nothing is ever served.
    rows.push(Row {
        what: "a request that is right",
        actions: answered(greeted([head(fields(), true)])),
        right: vec![Verdict::Status("200".to_owned())],
    });
    rows
}

/// Streams and frames (§§4.1, 5.2, 6.2, 7).
fn frames() -> Vec<Row> {
    vec![
        closed("6.2.1 a second control stream", [open(SECOND, CONTROL_TYPE)], STREAM_CREATION),
        closed("6.2.1 a control stream that ends", [said(CONTROL, &[], true)], CLOSED_CRITICAL),
        closed("6.2.2 a client pushes", [open(SECOND, PUSH_TYPE), said(SECOND, &[0], false)], STREAM_CREATION),
        closed("4.1 DATA before HEADERS", [frame(REQUEST, data(), true)], UNEXPECTED),
        closed(
            "4.1 DATA behind trailers",
            [head(fields(), false), trailers(false), frame(REQUEST, data(), true)],
            UNEXPECTED,
        ),
        closed("4.1 HEADERS behind trailers", [head(fields(), false), trailers(false), trailers(true)], UNEXPECTED),
        closed("7.1 a frame that its stream cuts off", [said(REQUEST, &[1, 9, 0, 0], true)], FRAME_ERROR),
        closed("7.1 GOAWAY that is longer than its identifier", [said(CONTROL, &[7, 2, 0, 0], false)], FRAME_ERROR),
        closed("7.1 MAX_PUSH_ID without one", [said(CONTROL, &[13, 0], false)], FRAME_ERROR),
        closed("7.2.1 DATA on the control stream", [frame(CONTROL, data(), false)], UNEXPECTED),
        closed(
            "7.2.3 CANCEL_PUSH on a request's stream",
            [frame(REQUEST, Frame::CancelPush { push_id: 0 }, false)],
            UNEXPECTED,
        ),
        closed(
            "7.2.3 CANCEL_PUSH of what nobody promised",
            [frame(CONTROL, Frame::CancelPush { push_id: 7 }, false)],
            ID_ERROR,
        ),
        closed("7.2.4 a second SETTINGS", [frame(CONTROL, settings(&[]), false)], UNEXPECTED),
        closed("7.2.4 SETTINGS on a request's stream", [frame(REQUEST, settings(&[]), false)], UNEXPECTED),
        closed("7.2.5 a client promises a push", [frame(REQUEST, promise(), false)], UNEXPECTED),
        closed("7.2.5 PUSH_PROMISE on the control stream", [frame(CONTROL, promise(), false)], UNEXPECTED),
        closed("7.2.6 GOAWAY on a request's stream", [frame(REQUEST, Frame::GoAway { id: 0 }, false)], UNEXPECTED),
        closed(
            "5.2 GOAWAY that goes up",
            [frame(CONTROL, Frame::GoAway { id: 4 }, false), frame(CONTROL, Frame::GoAway { id: 8 }, false)],
            ID_ERROR,
        ),
        closed(
            "7.2.7 MAX_PUSH_ID on a request's stream",
            [frame(REQUEST, Frame::MaxPushId { push_id: 0 }, false)],
            UNEXPECTED,
        ),
        closed(
            "7.2.7 MAX_PUSH_ID that goes down",
            [
                frame(CONTROL, Frame::MaxPushId { push_id: 9 }, false),
                frame(CONTROL, Frame::MaxPushId { push_id: 8 }, false),
            ],
            ID_ERROR,
        ),
        Row {
            what: "6.2.1 a control stream that does not begin with SETTINGS",
            actions: vec![open(CONTROL, CONTROL_TYPE), frame(CONTROL, Frame::GoAway { id: 0 }, false)],
            right: vec![Verdict::Closed(MISSING_SETTINGS)],
        },
    ]
}

/// QPACK (RFC 9204).
fn sections() -> Vec<Row> {
    vec![
        closed(
            "RFC 9204 4.2 a second encoder stream",
            [open(SECOND, ENCODER_TYPE), open(THIRD, ENCODER_TYPE)],
            STREAM_CREATION,
        ),
        closed("RFC 9204 4.2 an encoder stream that ends", [ended(SECOND, ENCODER_TYPE)], CLOSED_CRITICAL),
        closed("RFC 9204 4.2 a decoder stream that ends", [ended(SECOND, DECODER_TYPE)], CLOSED_CRITICAL),
        closed(
            "RFC 9204 3.1 a static entry that there is not",
            [frame(REQUEST, Frame::Headers { header_block: vec![0, 0, 0xff, 36] }, true)],
            DECOMPRESSION_FAILED,
        ),
        closed(
            "RFC 9204 4.3.1 a capacity beyond the one allowed",
            [open(SECOND, ENCODER_TYPE), said(SECOND, &[0x3f, 0xe1, 0xff, 0xff, 0x03], false)],
            ENCODER_STREAM,
        ),
        closed(
            "RFC 9204 4.4.3 an increment of nothing",
            [open(SECOND, DECODER_TYPE), said(SECOND, &[0], false)],
            DECODER_STREAM,
        ),
    ]
}

/// Requests that are malformed (§§4.1.2-4.4).
fn messages() -> Vec<Row> {
    let mut rows = vec![
        reset("4.1 a stream without a request", [said(REQUEST, &[], true)], REQUEST_INCOMPLETE),
        reset(
            "4.1.2 less content than promised",
            [head(promising("5"), false), frame(REQUEST, data(), true)],
            MESSAGE_ERROR,
        ),
        reset(
            "4.1.2 more content than promised",
            [head(promising("1"), false), frame(REQUEST, data(), true)],
            MESSAGE_ERROR,
        ),
        malformed("4.2 an uppercase name", with("X-A", "b")),
        malformed("4.2 a line feed in a value", with("x-a", "b\nc: d")),
        malformed("4.2 the field connection", with("connection", "close")),
        malformed("4.2 the field transfer-encoding", with("transfer-encoding", "chunked")),
        malformed("4.2 TE with more than trailers", with("te", "gzip")),
        malformed("4.3 a pseudo-field that nobody knows", with(":x", "b")),
        malformed("4.3 a response's pseudo-field", with(":status", "200")),
        malformed("4.3 a pseudo-field behind a field", [vec![field("x-a", "b")], fields()].concat()),
        malformed("4.3.1 two methods", [vec![field(":method", "GET")], fields()].concat()),
        malformed("4.3.1 an authority that Host contradicts", with("host", "elsewhere")),
        malformed("4.4 CONNECT without an authority", vec![field(":method", "CONNECT")]),
    ];
    let of_scheme = |scheme| {
        vec![field(":method", "GET"), field(":scheme", scheme), field(":authority", NAME), field(":path", "/")]
    };
    rows.push(malformed("4.3.1 what is no scheme", of_scheme("a b")));
    rows.push(Row {
        what: "4.3.1 a scheme that is not served",
        actions: answered(greeted([send_headers_frame_literal(REQUEST, true, of_scheme("ftp"))])),
        right: vec![Verdict::Status("400".to_owned())],
    });
    for missing in [":method", ":scheme", ":path"] {
        let rest = fields().into_iter().filter(|field| !is_named(field, missing)).collect();
        rows.push(malformed("4.3.1 a pseudo-field that is missing", rest));
    }
    rows
}

/// HTTP/2's frames and settings (§§7.2.4.1, 7.2.8).
fn reserved() -> Vec<Row> {
    let mut rows = Vec::new();
    for kind in [0x2, 0x6, 0x8, 0x9] {
        let unknown = Frame::Unknown { raw_type: kind, payload: vec![0; 4] };
        rows.push(closed(
            "7.2.8 a frame of HTTP/2's on the control stream",
            [frame(CONTROL, unknown.clone(), false)],
            UNEXPECTED,
        ));
        rows.push(closed(
            "7.2.8 a frame of HTTP/2's on a request's stream",
            [head(fields(), false), frame(REQUEST, unknown, false)],
            UNEXPECTED,
        ));
    }
    for name in [2, 3, 4, 5] {
        rows.push(Row {
            what: "7.2.4.1 a setting of HTTP/2's",
            actions: vec![open(CONTROL, CONTROL_TYPE), frame(CONTROL, settings(&[(name, 1)]), false)],
            right: vec![Verdict::Closed(SETTINGS_ERROR)],
        });
    }
    rows
}

/// A breach that ends the connection.
fn closed<const N: usize>(what: &'static str, actions: [Action; N], code: u64) -> Row {
    Row { what, actions: greeted(actions), right: vec![Verdict::Closed(code)] }
}

/// One that ends its stream.
fn reset<const N: usize>(what: &'static str, actions: [Action; N], code: u64) -> Row {
    Row { what, actions: answered(greeted(actions)), right: vec![Verdict::Reset(code)] }
}

/// A request with these fields, which may be answered 400 as well (§4.1.2).
fn malformed(what: &'static str, fields: Vec<Header>) -> Row {
    let actions = answered(greeted([send_headers_frame_literal(REQUEST, true, fields)]));
    Row { what, actions, right: vec![Verdict::Reset(MESSAGE_ERROR), Verdict::Status("400".to_owned())] }
}

/// Behind a control stream with SETTINGS.
fn greeted<const N: usize>(actions: [Action; N]) -> Vec<Action> {
    let greeting = [open(CONTROL, CONTROL_TYPE), frame(CONTROL, settings(&[]), false)];
    greeting.into_iter().chain(actions).collect()
}

/// Until the request's stream is over, and then the connection.
fn answered(mut actions: Vec<Action>) -> Vec<Action> {
    let over = StreamEvent { stream_id: REQUEST, event_type: StreamEventType::Finished };
    actions.push(WaitType::StreamEvent(over).into());
    let error = ConnectionError { is_app: true, error_code: NO_ERROR, reason: Vec::new() };
    actions.push(Action::ConnectionClose { error });
    actions
}

fn open(stream_id: u64, stream_type: u64) -> Action {
    Action::OpenUniStream { stream_id, fin_stream: false, stream_type, expected_result: Default::default() }
}

fn ended(stream_id: u64, stream_type: u64) -> Action {
    Action::OpenUniStream { stream_id, fin_stream: true, stream_type, expected_result: Default::default() }
}

fn said(stream_id: u64, bytes: &[u8], fin_stream: bool) -> Action {
    Action::StreamBytes { stream_id, fin_stream, bytes: bytes.to_vec(), expected_result: Default::default() }
}

fn frame(stream_id: u64, frame: Frame, fin_stream: bool) -> Action {
    Action::SendFrame { stream_id, fin_stream, frame, expected_result: Default::default() }
}

fn head(fields: Vec<Header>, fin_stream: bool) -> Action {
    send_headers_frame(REQUEST, fin_stream, fields)
}

fn trailers(fin_stream: bool) -> Action {
    head(vec![field("x-checksum", "1")], fin_stream)
}

fn data() -> Frame {
    Frame::Data { payload: b"abc".to_vec() }
}

fn promise() -> Frame {
    Frame::PushPromise { push_id: 0, header_block: vec![0, 0, 0xd1] }
}

fn settings(more: &[(u64, u64)]) -> Frame {
    Frame::Settings {
        max_field_section_size: None,
        qpack_max_table_capacity: None,
        qpack_blocked_streams: None,
        connect_protocol_enabled: None,
        h3_datagram: None,
        grease: None,
        additional_settings: Some(more.to_vec()),
        raw: None,
    }
}

fn field(name: &str, value: &str) -> Header {
    Header::new(name.as_bytes(), value.as_bytes())
}

fn is_named(field: &Header, name: &str) -> bool {
    h3i::quiche::h3::NameValue::name(field) == name.as_bytes()
}

fn fields() -> Vec<Header> {
    vec![field(":method", "GET"), field(":scheme", "https"), field(":authority", NAME), field(":path", "/")]
}

/// A pseudo-field goes among the others, anything else behind them.
fn with(name: &str, value: &str) -> Vec<Header> {
    fields().into_iter().chain([field(name, value)]).collect()
}

fn promising(length: &str) -> Vec<Header> {
    let post =
        fields().into_iter().map(|line| if is_named(&line, ":method") { field(":method", "POST") } else { line });
    let post = post.map(|line| if is_named(&line, ":path") { field(":path", "/echo") } else { line });
    post.chain([field("content-length", length)]).collect()
}
