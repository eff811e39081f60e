//! One connection written down as qlog: packets, loss and congestion as quinn-proto tells them, and what this room and HTTP/3 know besides.
//!
//! Nothing of what was said is in it: no field, no content, only that there was some and how long it was.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Instant;

use qlog::events::connectivity::{
    ConnectionClosed, ConnectionClosedTrigger, ConnectionStarted, ConnectionState, ConnectionStateUpdated,
    TransportOwner,
};
use qlog::events::h3::{H3FrameCreated, H3FrameParsed, H3Owner, H3ParametersSet, Http3Frame};
use qlog::events::{ApplicationErrorCode, ConnectionErrorCode, Event, EventData};
use qlog::{Configuration, QLOG_VERSION, QlogSeq, TraceSeq, VantagePoint, VantagePointType};
use quinn_proto::{ConnectionError, ConnectionId, QlogConfig, QlogStream, Side};
use ring::Now;

use super::instant;
use crate::limits;
use crate::telemetry::qlog::Sheet;

/// A frame of HTTP/3.
#[derive(Clone, Copy, Debug)]
pub enum Frame {
    Headers,
    /// So many bytes of content.
    Data(usize),
}

/// What is written of a connection.
#[derive(Debug)]
pub struct Trace {
    sheet: Sheet,
    began: Instant,
    /// When it was last handed over.
    flushed: Cell<Now>,
    ended: Cell<bool>,
}

impl Trace {
    /// Begins with a connection of which we are this side, and gives what quinn-proto is to tell the rest to.
    pub(super) fn begin(
        sheet: Sheet,
        side: Side,
        id: ConnectionId,
        peer: SocketAddr,
        now: Now,
    ) -> (Self, Option<QlogStream>) {
        let trace =
            Self { sheet: sheet.clone(), began: instant(now), flushed: Cell::new(now), ended: Cell::new(false) };
        trace.head(side);
        let (client, server) = match side {
            Side::Client => (None, Some(peer)),
            Side::Server => (Some(peer), None),
        };
        let text = |address: Option<SocketAddr>| address.map(|address| address.ip().to_string()).unwrap_or_default();
        trace.event(
            now,
            EventData::ConnectionStarted(ConnectionStarted {
                ip_version: Some(if peer.is_ipv4() { "v4" } else { "v6" }.to_owned()),
                src_ip: text(client),
                dst_ip: text(server),
                protocol: Some("QUIC".to_owned()),
                src_port: client.map(|client| client.port()),
                dst_port: server.map(|server| server.port()),
                src_cid: None,
                dst_cid: Some(id.to_string()),
            }),
        );
        let mut config = QlogConfig::default();
        config.start_time(trace.began).writer(Box::new(sheet.clone()));
        // It would begin another log, of whose vantage point it knows nothing.
        sheet.mute(true);
        let stream = config.into_stream();
        sheet.mute(false);
        (trace, stream)
    }

    fn head(&self, side: Side) {
        let ty = match side {
            Side::Client => VantagePointType::Client,
            Side::Server => VantagePointType::Server,
        };
        let vantage_point = VantagePoint { name: None, ty, flow: None };
        let configuration = Configuration { time_offset: Some(0.0), original_uris: None };
        let head = QlogSeq {
            qlog_version: QLOG_VERSION.to_owned(),
            qlog_format: "JSON-SEQ".to_owned(),
            title: Some("penstock".to_owned()),
            description: None,
            summary: None,
            trace: TraceSeq::new(vantage_point, None, None, Some(configuration), None),
        };
        self.write(&head);
    }

    fn write(&self, record: &impl serde::Serialize) {
        if let Ok(json) = serde_json::to_vec(record) {
            self.sheet.record(&json);
        }
    }

    fn event(&self, now: Now, data: EventData) {
        let since = instant(now).saturating_duration_since(self.began);
        self.write(&Event::with_time(since.as_secs_f32() * 1_000.0, data));
    }

    /// What has been collected for a while is handed over, so that it can be read while the connection goes on.
    pub(super) fn advance(&self, now: Now) {
        if now.since(self.flushed.get()) >= limits::HOUSEKEEPING {
            self.flushed.set(now);
            self.sheet.flush();
        }
    }

    pub(super) fn connected(&self, now: Now) {
        let new = ConnectionState::HandshakeCompleted;
        self.event(now, EventData::ConnectionStateUpdated(ConnectionStateUpdated { old: None, new }));
    }

    /// The client is elsewhere now, for which this version of qlog has no event of its own.
    pub(super) fn moved(&self, now: Now, from: SocketAddr, to: SocketAddr) {
        let marker = EventData::Marker {
            marker_type: "connection_migrated".to_owned(),
            message: Some(format!("from {from} to {to}")),
        };
        self.event(now, marker);
    }

    /// It is over, and why. Only the first reason counts.
    pub(super) fn closed(&self, now: Now, why: &ConnectionError) {
        let mut event = ConnectionClosed {
            owner: Some(TransportOwner::Remote),
            connection_code: None,
            application_code: None,
            internal_code: None,
            reason: Some(why.to_string()),
            trigger: Some(ConnectionClosedTrigger::Error),
        };
        match why {
            ConnectionError::VersionMismatch => event.trigger = Some(ConnectionClosedTrigger::VersionMismatch),
            ConnectionError::TransportError(error) => {
                event.owner = Some(TransportOwner::Local);
                event.connection_code = Some(ConnectionErrorCode::Value(u64::from(error.code)));
            }
            ConnectionError::ConnectionClosed(close) => {
                event.connection_code = Some(ConnectionErrorCode::Value(u64::from(close.error_code)));
            }
            ConnectionError::ApplicationClosed(close) => {
                event.application_code = Some(ApplicationErrorCode::Value(close.error_code.into_inner()));
                event.trigger = Some(ConnectionClosedTrigger::Application);
            }
            ConnectionError::Reset => event.trigger = Some(ConnectionClosedTrigger::StatelessReset),
            ConnectionError::TimedOut => {
                event.owner = None;
                event.trigger = Some(ConnectionClosedTrigger::IdleTimeout);
            }
            ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => {
                event.owner = Some(TransportOwner::Local);
            }
        }
        self.end(now, event);
    }

    /// We end it, with this code of the application.
    pub(super) fn close(&self, now: Now, code: u64) {
        let event = ConnectionClosed {
            owner: Some(TransportOwner::Local),
            connection_code: None,
            application_code: Some(ApplicationErrorCode::Value(code)),
            internal_code: None,
            reason: None,
            trigger: Some(ConnectionClosedTrigger::Application),
        };
        self.end(now, event);
    }

    fn end(&self, now: Now, event: ConnectionClosed) {
        if !self.ended.replace(true) {
            self.event(now, EventData::ConnectionClosed(event));
        }
    }

    /// The peer's settings are here.
    pub fn settings(&self, now: Now, settings: &proto::h3::PeerSettings) {
        let event = H3ParametersSet {
            owner: Some(H3Owner::Remote),
            max_field_section_size: Some(settings.max_field_section_size),
            max_table_capacity: Some(settings.qpack_max_table_capacity),
            blocked_streams_count: Some(settings.qpack_blocked_streams),
            enable_connect_protocol: Some(settings.enable_connect_protocol.into()),
            h3_datagram: Some(settings.datagrams.into()),
            waits_for_settings: None,
        };
        self.event(now, EventData::H3ParametersSet(event));
    }

    /// A frame of a stream was understood.
    pub fn parsed(&self, now: Now, stream: u64, frame: Frame) {
        let (frame, length) = told(frame);
        let event = H3FrameParsed { stream_id: stream, length, frame, raw: None };
        self.event(now, EventData::H3FrameParsed(event));
    }

    /// A frame was said on a stream.
    pub fn created(&self, now: Now, stream: u64, frame: Frame) {
        let (frame, length) = told(frame);
        let event = H3FrameCreated { stream_id: stream, length, frame, raw: None };
        self.event(now, EventData::H3FrameCreated(event));
    }
}

fn told(frame: Frame) -> (Http3Frame, Option<u64>) {
    match frame {
        Frame::Headers => (Http3Frame::Headers { headers: Vec::new() }, None),
        Frame::Data(bytes) => (Http3Frame::Data { raw: None }, Some(bytes as u64)),
    }
}
