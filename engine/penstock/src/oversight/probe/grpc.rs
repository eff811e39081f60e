//! A probe that asks as gRPC's health checking has it: `grpc.health.v1.Health/Check`, a unary call with a deadline.

use std::time::Duration;

use proto::grpc::{self, PREFIX_BYTES, health, length_of};
use proto::h1::{ResponseHead, Trailers};
use proto::http::{Fields, Known};
use ring::Buf;

use super::{Asked, shown, told};
use crate::conn::Read;
use crate::limits;

impl Asked {
    /// Asks how a service is. Who cannot answer within the probe's time need not try.
    pub(super) fn check_service(&mut self, service: &str, host: &str, timeout: Duration) -> Result<(), String> {
        let Self::Http2(_, stream) = self else { return Err("gRPC is spoken over HTTP/2".into()) };
        let message = health::request(service);
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {host}\r\nTE: trailers\r\nContent-Type: application/grpc\r\n\
             Grpc-Timeout: {}m\r\nUser-Agent: penstock-health\r\nContent-Length: {}\r\n\r\n",
            health::METHOD,
            timeout.as_millis().clamp(1, 99_999_999),
            message.len(),
        );
        let mut ask = || {
            stream.ask_as(request.as_bytes())?;
            stream.queue(message.len())?;
            stream.send(Buf::copy_of(&message));
            stream.finish(Trailers::default())
        };
        ask().map_err(|_| "the connection is not free".to_owned())
    }

    /// What it says of the service.
    pub(super) async fn serving(&mut self, service: &str) -> Result<String, String> {
        let mut fields = Fields::with_limit(limits::FIELDS_MAX);
        let head = self.head(&mut fields).await?;
        self.is_an_answer(&head, &fields, service)?;
        self.lane().skip_head(head.length as usize);
        let mut content = Vec::new();
        loop {
            match self.read(&mut fields).await {
                Ok(Read::Data(data)) => content.extend_from_slice(data.bytes()),
                Ok(Read::End) => break,
                Ok(_) => return Err("its answer broke off".into()),
                Err(broken) => return Err(told(&broken)),
            }
            if content.len() > limits::PROBE_BYTES_MAX {
                return Err(format!("its answer has more than {} bytes", limits::PROBE_BYTES_MAX));
            }
        }
        let trailers = self.lane().take_trailers();
        let of = |name: &[u8]| trailers.iter().find(|(found, _)| *found == name).map(|(_, value)| value);
        went_well(of(b"grpc-status").ok_or("its answer has no grpc-status")?, of(b"grpc-message"), service)?;
        status(&content)
    }

    /// Refuses a head that begins no answer of gRPC, or is all of one.
    fn is_an_answer(&mut self, head: &ResponseHead, fields: &Fields, service: &str) -> Result<(), String> {
        let lane = self.lane();
        let bytes = lane.head(head.length as usize);
        let code = head.status.code();
        let content_type = fields.value(Known::ContentType, bytes).unwrap_or_default();
        if code != 200 || !grpc::is_media_type(content_type) {
            return Err(format!("{code} with content-type {}, which is no gRPC", shown(content_type)));
        }
        let of = |name: &[u8]| fields.find(name, bytes).map(|field| field.value.of(bytes));
        match of(b"grpc-status") {
            Some(code) => went_well(code, of(b"grpc-message"), service),
            None => Ok(()),
        }
    }
}

/// Refuses whatever is not OK, in words.
fn went_well(code: &[u8], message: Option<&[u8]>, service: &str) -> Result<(), String> {
    let name = grpc::code_of(code).map_or("no status that is known", grpc::code_text);
    match name {
        "OK" => Ok(()),
        "UNIMPLEMENTED" => Err(format!("UNIMPLEMENTED: it has no {}", health::METHOD)),
        "NOT_FOUND" => Err(format!("NOT_FOUND: it does not know the service {service:?}")),
        name => Err(format!("{name}: {}", shown(message.unwrap_or_default()))),
    }
}

/// What a message says, and only `SERVING` is good.
fn status(content: &[u8]) -> Result<String, String> {
    let whole = content.split_first_chunk::<PREFIX_BYTES>();
    let message = whole.filter(|(prefix, message)| prefix[0] == 0 && length_of(**prefix) as usize == message.len());
    let (_, message) = message.ok_or("its answer is not one plain message")?;
    match health::response(message) {
        Ok(health::Serving::Serving) => Ok("SERVING".into()),
        Ok(health::Serving::NotServing) => Err("NOT_SERVING".into()),
        Ok(health::Serving::Unknown) => Err("UNKNOWN".into()),
        Ok(health::Serving::ServiceUnknown) => Err("SERVICE_UNKNOWN".into()),
        Ok(health::Serving::Other(number)) => Err(format!("the status {number}, which nobody knows")),
        Err(health::Unreadable) => Err("its answer is no HealthCheckResponse".into()),
    }
}
