//! The crate `h3` over quinn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::{Answer, EXCHANGES, Exchange, NAME, Outcome};

const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for everything at once.
pub fn ask(address: SocketAddr, authority: &str) -> Outcome<Vec<Answer>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, ask_all(address, authority)).await? })
}

async fn ask_all(address: SocketAddr, authority: &str) -> Outcome<Vec<Answer>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
    let connection = endpoint.connect(address, NAME)?.await?;
    let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
    let driving = tokio::spawn(async move { driver.wait_idle().await });
    let under_way: Vec<_> =
        EXCHANGES.iter().map(|exchange| tokio::spawn(ask_one(requests.clone(), exchange))).collect();
    let mut answers = Vec::new();
    for exchange in under_way {
        answers.push(exchange.await?.map_err(|error| error.to_string())?);
    }
    drop(requests);
    let ended = driving.await?;
    if !ended.is_h3_no_error() {
        return Err(format!("the connection ended with {ended}").into());
    }
    endpoint.wait_idle().await;
    Ok(answers)
}

type Requests = SendRequest<h3_quinn::OpenStreams, Bytes>;

async fn ask_one(
    mut requests: Requests,
    exchange: &'static Exchange,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let method = if exchange.content.is_empty() { "GET" } else { "POST" };
    let request = http::Request::builder().method(method).uri(format!("https://{NAME}{}", exchange.path)).body(())?;
    let (mut send, mut receive) = requests.send_request(request).await?.split();
    // Content goes while the answer comes: an echo begins before its content has ended.
    let sending = tokio::spawn(async move {
        if !exchange.content.is_empty() {
            send.send_data(Bytes::from_static(exchange.content)).await?;
        }
        send.finish().await
    });
    let mut answer = Answer { status: receive.recv_response().await?.status().as_u16(), body: Vec::new() };
    while let Some(mut piece) = receive.recv_data().await? {
        while piece.has_remaining() {
            let chunk = piece.chunk();
            answer.body.extend_from_slice(chunk);
            let bytes = chunk.len();
            piece.advance(bytes);
        }
    }
    sending.await??;
    Ok(answer)
}
