;; Lets HTTP requests pass to one origin only.
;;
;; Wasmtime's Python package offers `wasi:http` whole or not at all. This component stands between
;; it and edge-sync: `handle` hands a request on if its scheme and authority are those that `allow`
;; was told, and answers HTTP-request-denied otherwise, also before `allow` was called. It limits how
;; long the server may be silent, before the first byte of an answer and within it.
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "outgoing-request" (type $request (sub resource)))
    (export "request-options" (type $options (sub resource)))
    (export "future-incoming-response" (type $response (sub resource)))
    (type $scheme-cases (variant (case "HTTP") (case "HTTPS") (case "other" string)))
    (export "scheme" (type $scheme (eq $scheme-cases)))
    (type $dns-fields (record
      (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns-fields)))
    (type $tls-fields (record
      (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls (eq $tls-fields)))
    (type $size-fields (record
      (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $size (eq $size-fields)))
    (type $error-cases (variant
      (case "DNS-timeout")
      (case "DNS-error" $dns)
      (case "destination-not-found")
      (case "destination-unavailable")
      (case "destination-IP-prohibited")
      (case "destination-IP-unroutable")
      (case "connection-refused")
      (case "connection-terminated")
      (case "connection-timeout")
      (case "connection-read-timeout")
      (case "connection-write-timeout")
      (case "connection-limit-reached")
      (case "TLS-protocol-error")
      (case "TLS-certificate-error")
      (case "TLS-alert-received" $tls)
      (case "HTTP-request-denied")
      (case "HTTP-request-length-required")
      (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid")
      (case "HTTP-request-URI-invalid")
      (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32))
      (case "HTTP-request-header-size" (option $size))
      (case "HTTP-request-trailer-section-size" (option u32))
      (case "HTTP-request-trailer-size" $size)
      (case "HTTP-response-incomplete")
      (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $size)
      (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32))
      (case "HTTP-response-trailer-size" $size)
      (case "HTTP-response-transfer-coding" (option string))
      (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout")
      (case "HTTP-upgrade-failed")
      (case "HTTP-protocol-error")
      (case "loop-detected")
      (case "configuration-error")
      (case "internal-error" (option string))))
    (export "error-code" (type $error (eq $error-cases)))
    (export "[method]outgoing-request.scheme"
      (func (param "self" (borrow $request)) (result (option $scheme))))
    (export "[method]outgoing-request.authority"
      (func (param "self" (borrow $request)) (result (option string))))
    (export "[method]request-options.set-first-byte-timeout"
      (func (param "self" (borrow $options)) (param "duration" (option u64)) (result (result))))
    (export "[method]request-options.set-between-bytes-timeout"
      (func (param "self" (borrow $options)) (param "duration" (option u64)) (result (result))))))
  (alias export $types "outgoing-request" (type $request))
  (alias export $types "request-options" (type $options))
  (alias export $types "future-incoming-response" (type $response))
  (alias export $types "error-code" (type $error))
  (import "wasi:http/outgoing-handler@0.2.0" (instance $handler
    (export "handle" (func
      (param "request" (own $request)) (param "options" (option (own $options)))
      (result (result (own $response) (error $error)))))))

  ;; Memory: 0 scheme (option<scheme>), 32 authority (option<string>), 64 the answer of `handle`;
  ;; from 1024 the origin, up to 1024 bytes of it; from 4096 what calls bring, anew with each call.
  (core module $memory-module
    (memory (export "memory") 2)
    (global $next (export "next") (mut i32) (i32.const 4096))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
      (result i32)
      (local $place i32)
      ;; Nothing is ever grown: strings come whole.
      (if (local.get $old) (then (unreachable)))
      (local.set $place (i32.and
        (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      (global.set $next (i32.add (local.get $place) (local.get $size)))
      ;; Past the end, in 64 bits: a sum of 32 could wrap.
      (if (i64.gt_u
            (i64.add (i64.extend_i32_u (local.get $place)) (i64.extend_i32_u (local.get $size)))
            (i64.const 131072))
        (then (unreachable)))
      (local.get $place)))
  (core instance $memory (instantiate $memory-module))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $scheme (canon lower (func $types "[method]outgoing-request.scheme")
    (memory $mem) (realloc $realloc)))
  (core func $authority (canon lower (func $types "[method]outgoing-request.authority")
    (memory $mem) (realloc $realloc)))
  (core func $handle (canon lower (func $handler "handle") (memory $mem) (realloc $realloc)))
  (core func $first-byte (canon lower
    (func $types "[method]request-options.set-first-byte-timeout")))
  (core func $between-bytes (canon lower
    (func $types "[method]request-options.set-between-bytes-timeout")))
  (core func $drop-request (canon resource.drop $request))
  (core func $drop-options (canon resource.drop $options))

  (core module $guard-module
    (import "memory" "memory" (memory 2))
    (import "memory" "next" (global $next (mut i32)))
    (import "http" "scheme" (func $scheme (param i32 i32)))
    (import "http" "authority" (func $authority (param i32 i32)))
    (import "http" "handle" (func $handle (param i32 i32 i32 i32)))
    (import "http" "first-byte" (func $first-byte (param i32 i32 i64) (result i32)))
    (import "http" "between-bytes" (func $between-bytes (param i32 i32 i64) (result i32)))
    (import "http" "drop-request" (func $drop-request (param i32)))
    (import "http" "drop-options" (func $drop-options (param i32)))
    ;; The case of `scheme` that may pass, and the length of the authority; none yet.
    (global $allowed-scheme (mut i32) (i32.const -1))
    (global $allowed-length (mut i32) (i32.const 0))
    (global $silence (mut i64) (i64.const 0))

    (func (export "allow") (param $secure i32) (param $text i32) (param $length i32)
      (param $nanoseconds i64)
      (if (i32.gt_u (local.get $length) (i32.const 1024)) (then (unreachable)))
      (memory.copy (i32.const 1024) (local.get $text) (local.get $length))
      (global.set $allowed-scheme (local.get $secure))
      (global.set $allowed-length (local.get $length))
      (global.set $silence (local.get $nanoseconds))
      (global.set $next (i32.const 4096)))

    (func $passes (param $request i32) (result i32)
      (local $text i32) (local $at i32)
      (call $scheme (local.get $request) (i32.const 0))
      (if (i32.eqz (i32.load8_u (i32.const 0))) (then (return (i32.const 0))))
      (if (i32.ne (i32.load8_u (i32.const 4)) (global.get $allowed-scheme))
        (then (return (i32.const 0))))
      (call $authority (local.get $request) (i32.const 32))
      (if (i32.eqz (i32.load8_u (i32.const 32))) (then (return (i32.const 0))))
      (local.set $text (i32.load (i32.const 36)))
      (if (i32.ne (i32.load (i32.const 40)) (global.get $allowed-length))
        (then (return (i32.const 0))))
      (block $same
        (loop $byte
          (br_if $same (i32.ge_u (local.get $at) (global.get $allowed-length)))
          (if (i32.ne
                (i32.load8_u (i32.add (local.get $text) (local.get $at)))
                (i32.load8_u (i32.add (i32.const 1024) (local.get $at))))
            (then (return (i32.const 0))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $byte)))
      (i32.const 1))

    (func (export "handle") (param $request i32) (param $has-options i32) (param $options i32)
      (result i32)
      (global.set $next (i32.const 4096))
      (if (call $passes (local.get $request))
        (then
          ;; A host that does not know a limit has its own.
          (if (local.get $has-options)
            (then
              (drop (call $first-byte
                (local.get $options) (i32.const 1) (global.get $silence)))
              (drop (call $between-bytes
                (local.get $options) (i32.const 1) (global.get $silence)))))
          (call $handle
            (local.get $request) (local.get $has-options) (local.get $options) (i32.const 64)))
        (else
          (call $drop-request (local.get $request))
          (if (local.get $has-options) (then (call $drop-options (local.get $options))))
          ;; The error, and of it the case HTTP-request-denied.
          (i32.store8 (i32.const 64) (i32.const 1))
          (i32.store8 (i32.const 72) (i32.const 15))))
      (i32.const 64)))
  (core instance $guard (instantiate $guard-module
    (with "memory" (instance $memory))
    (with "http" (instance
      (export "scheme" (func $scheme))
      (export "authority" (func $authority))
      (export "handle" (func $handle))
      (export "first-byte" (func $first-byte))
      (export "between-bytes" (func $between-bytes))
      (export "drop-request" (func $drop-request))
      (export "drop-options" (func $drop-options))))))

  (func (export "allow") (param "secure" bool) (param "authority" string)
    (param "silence-nanoseconds" u64)
    (canon lift (core func $guard "allow") (memory $mem) (realloc $realloc)))
  (func (export "handle")
    (param "request" (own $request)) (param "options" (option (own $options)))
    (result (result (own $response) (error $error)))
    (canon lift (core func $guard "handle") (memory $mem) (realloc $realloc))))
