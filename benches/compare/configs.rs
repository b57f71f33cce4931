//! The other proxies' configurations: defaults, connections that are kept, no access log, bodies passed on
//! as they come, and the nearest to "refuse an old epoch" that each can say.

use std::net::SocketAddr;

use crate::shape::Shape;

/// nginx compares for equality only. HTTP/2 without TLS needs a listener of its own there, and there is none to an
/// upstream.
pub fn nginx(listen: SocketAddr, http2: SocketAddr, shape: &Shape) -> String {
    let Shape { workers, upstream, .. } = shape;
    format!(
        r#"daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 19900; }}
http {{
  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  map $http_x_epoch $stale {{ default 1; "7" 0; }}
  upstream target {{ server {upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen {listen} backlog=4096;
    listen {http2} http2;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    location / {{
      if ($stale) {{ return 412; }}
      proxy_pass http://target;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
}}
"#
    )
}

/// HAProxy takes HTTP/1 and HTTP/2 at one address. It runs as it comes: its default buffers, and no `option splice-auto`.
/// Only that it keeps and reuses connections to the upstream is set, as everybody does: by default a client's first request
/// opens another beside those that are idle, and with 9,500 it answers some with 503 (probably past the limit of descriptors that
/// follows from `maxconn`; its log says only that the connection failed at once); and it closes idle ones after five seconds, and with a quarter of its descriptors in use.
/// To an HTTP/2 upstream, where no part has so many, the reuse is its default.
pub fn haproxy(listen: SocketAddr, shape: &Shape) -> String {
    let Shape { workers, upstream, .. } = shape;
    let (version, reuse) = if shape.http2 { (" proto h2", "safe") } else { ("", "always") };
    format!(
        "global
  nbthread {workers}
  maxconn 9700
  tune.pool-high-fd-ratio 100
defaults
  mode http
  http-reuse {reuse}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend door
  bind {listen} backlog 4096
  http-request return status 412 if {{ req.hdr_val(x-epoch) lt 5 }}
  default_backend target
backend target
  server upstream {upstream}{version} pool-purge-delay 1h
"
    )
}

/// Its upstream's version is said in a place of its own; the brackets save knowing how far it is indented.
const ENVOY_HTTP2: &str = r#"typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: { http2_protocol_options: {} } } }
    "#;

/// Envoy's default circuit breakers would refuse what a full load opens.
pub fn envoy(listen: SocketAddr, shape: &Shape) -> String {
    let upstream = shape.upstream;
    let version = if shape.http2 { ENVOY_HTTP2 } else { "" };
    format!(
        r#"static_resources:
  listeners:
  - name: door
    address: {{ socket_address: {{ address: {from_ip}, port_value: {from_port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: door
          codec_type: AUTO
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match:
                  prefix: "/"
                  headers: [{{ name: x-epoch, range_match: {{ start: 5, end: 9223372036854775807 }} }}]
                route: {{ cluster: target, timeout: 0s }}
              - match: {{ prefix: "/" }}
                direct_response: {{ status: 412 }}
  clusters:
  - name: target
    type: STATIC
    connect_timeout: 5s
    {version}circuit_breakers:
      thresholds: [{{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}]
    load_assignment:
      cluster_name: target
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {to_ip}, port_value: {to_port} }} }} }}
"#,
        from_ip = listen.ip(),
        from_port = listen.port(),
        to_ip = upstream.ip(),
        to_port = upstream.port(),
    )
}
