//! Connections to the server: kept, secured, through proxies, and what is said when there is none.

use std::path::Path;
use std::process::Command;

use edge_sync_double::{Fault, QdrantDouble, Reply, Rule};
use edge_sync_host::{
    BatchLimits, ClientCertificate, EdgeSync, Error, FailureClass, PullReport, ServerFailure,
    ServerSettings, SyncReport, Synced, TlsSettings,
};
use serde_json::json;

use crate::certificates::{Authority, Identity};
use crate::gateway::{Gateway, GatewayKind};
use crate::served::edge_sync;
use crate::support::{COLLECTION, CONFIG, component, impatient, point, server, server_points};

/// A device whose server is at `url`.
fn device_at(directory: &Path, url: &str, tls: TlsSettings) -> EdgeSync {
    let mut settings = ServerSettings::new(url, COLLECTION);
    settings.tls = tls;
    EdgeSync::builder(component(), directory)
        .server(settings)
        // Many requests, of one size.
        .sync_options(impatient().batch(BatchLimits::default().most_operations(10)))
        .create(CONFIG)
        .expect("a shard")
}

/// A device whose requests are long enough to be worth compressing.
fn compressing(directory: &Path, server: &QdrantDouble) -> EdgeSync {
    let batch = BatchLimits::default().operations(50).most_operations(50);
    EdgeSync::builder(component(), directory)
        .server(ServerSettings::new(server.url(), COLLECTION).compress_uploads(true))
        .sync_options(impatient().batch(batch))
        .create(CONFIG)
        .expect("a shard")
}

fn write(edge: &EdgeSync, ids: std::ops::Range<u64>) {
    for id in ids {
        edge.shard().upsert(vec![point(id)]).expect("a write");
    }
}

/// A sync in which no exchange fails.
fn sync(edge: &EdgeSync) -> Synced {
    let report = edge.sync_with(&edge_sync_host::Cancel::new(), |step| {
        assert!(
            !matches!(step, edge_sync_host::Progress::Waiting { .. }),
            "{step:?}"
        );
    });
    report.and_then(SyncReport::into_result).expect("a sync")
}

/// Why a sync had no answer, and how many connections it tried.
fn refused(edge: &EdgeSync, gateway: &Gateway) -> (ServerFailure, usize) {
    let before = gateway.connections();
    match edge.sync().expect("a report").failure {
        Some(Error::Server(failure)) => (failure, gateway.connections() - before),
        other => panic!("{other:?}"),
    }
}

fn trusting(authority: &Authority, folder: &Path) -> TlsSettings {
    TlsSettings::default().ca_file(Some(authority.file(folder)))
}

#[test]
fn a_drain_does_not_connect_for_each_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let gateway = Gateway::start(server.address(), GatewayKind::Relay);
    let url = format!("http://{}", gateway.address());
    let edge = device_at(folder.path(), &url, TlsSettings::default());
    write(&edge, 0..200);
    let report = sync(&edge);
    assert_eq!(report.uploaded, 200);
    assert!(server.exchanges().len() > 20);
    // A connection that is free again a moment late may have had another made in its place.
    assert!(gateway.connections() <= 3, "{}", gateway.connections());
}

#[test]
fn uploads_are_compressed_where_the_server_reads_that() {
    for refusal in [None, Some(400), Some(415)] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        if let Some(status) = refusal {
            let words = json!({"status": {"error": "Format error in JSON body"}, "time": 0.0});
            let reply = Fault::Reply(Reply::json(status, &words));
            let rule = Rule::on("*", "").compressed().fault(reply).always();
            server.faults().add(rule);
        }
        let edge = compressing(folder.path(), &server);
        write(&edge, 0..300);
        let report = sync(&edge);
        assert_eq!((report.uploaded, report.rejected), (300, 0), "{refusal:?}");
        assert_eq!(server_points(&server).len(), 300);
        let exchanges = server.exchanges();
        let packed = exchanges.iter().filter(|it| {
            it.headers
                .get("content-encoding")
                .is_some_and(|it| it == "gzip")
        });
        let (packed, bytes) = packed.fold((0, 0), |(n, sum), it| (n + 1, sum + it.body_bytes));
        match refusal {
            None => assert!(packed > 3 && bytes < 60 * 300, "{packed} {bytes}"),
            // Asked once, and left alone since.
            Some(_) => assert_eq!(packed, 1),
        }
    }
}

#[test]
fn a_compressed_operation_that_qdrant_refuses_is_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let words = json!({"status": {"error": "Bad request: not this one"}, "time": 0.0});
    let reply = Fault::Reply(Reply::json(400, &words));
    server.faults().add(
        Rule::on("*", "points/batch")
            .with_point(7)
            .fault(reply.clone())
            .always(),
    );
    // What is compressed hides the point from the rule.
    server.faults().add(
        Rule::on("*", "points/batch")
            .compressed()
            .fault(reply)
            .times(3),
    );
    let edge = compressing(folder.path(), &server);
    write(&edge, 0..200);
    let report = edge
        .push()
        .and_then(SyncReport::into_result)
        .expect("a push");
    assert_eq!((report.uploaded, report.rejected), (199, 1));
}

#[test]
fn a_connection_that_the_server_closed_meanwhile_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let gateway = Gateway::start(server.address(), GatewayKind::Relay);
    let url = format!("http://{}", gateway.address());
    let edge = device_at(folder.path(), &url, TlsSettings::default());
    for round in 0..5 {
        write(&edge, round..round + 1);
        let report = edge.push().and_then(SyncReport::into_result);
        assert_eq!(report.expect("a push").uploaded, 1);
        gateway.close_idle();
    }
    write(&edge, 5..6);
    sync(&edge);
    assert_eq!(server_points(&server).len(), 6);
}

#[test]
fn the_words_behind_a_304_reach_no_other_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let gateway = Gateway::start(server.address(), GatewayKind::Relay);
    let url = format!("http://{}", gateway.address());
    let edge = device_at(folder.path(), &url, TlsSettings::default());
    write(&edge, 0..20);
    sync(&edge);
    let mut unchanged = 0;
    for round in 0..4 {
        let report = sync(&edge);
        let pulled = report.pulled.expect("a pull");
        unchanged += usize::from(!PullReport::changed(&pulled));
        write(&edge, 20 + round..21 + round);
        // On whatever connection the 304 left.
        let pushed = edge.push().and_then(SyncReport::into_result);
        assert_eq!(pushed.expect("a push").uploaded, 1);
    }
    let said: Vec<_> = server
        .exchanges()
        .iter()
        .filter(|exchange| exchange.status == Some(304))
        .map(|exchange| exchange.path.clone())
        .collect();
    assert!(
        !said.is_empty(),
        "no 304; {unchanged} pulls brought nothing"
    );
    assert_eq!(server_points(&server).len(), 24);
}

/// A server behind TLS.
fn secured(server: &QdrantDouble, identity: &Identity) -> (Gateway, String) {
    let kind = GatewayKind::Tls(identity.server(None, &["http/1.1"]));
    let gateway = Gateway::start(server.address(), kind);
    let url = format!("https://{}", gateway.address());
    (gateway, url)
}

#[test]
fn an_authority_of_ones_own_is_trusted_if_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let authority = Authority::new();
    let (gateway, url) = secured(&server, &authority.issue(&["127.0.0.1"]));
    let tls = trusting(&authority, folder.path());
    let edge = device_at(&folder.path().join("data"), &url, tls);
    write(&edge, 0..50);
    assert_eq!(sync(&edge).uploaded, 50);
    assert!(gateway.connections() <= 3, "{}", gateway.connections());
}

#[test]
fn a_certificate_that_is_not_accepted_stops_the_upload_and_says_why() {
    let mine = Authority::new();
    let ip: &[&str] = &["127.0.0.1"];
    for (identity, class, words) in [
        (
            Authority::named("another").issue(ip),
            FailureClass::Stop,
            vec!["not trusted", "ca_file", "SSL_CERT_FILE"],
        ),
        // One that was made anew.
        (
            Authority::new().issue(ip),
            FailureClass::Stop,
            vec!["not trusted", "ca_file", "SSL_CERT_FILE"],
        ),
        (
            mine.issue_expired(ip),
            FailureClass::Stop,
            vec!["expired", "2001-12-31", "clock says"],
        ),
        (
            mine.issue(&["qdrant.example", "10.1.2.3"]),
            FailureClass::Stop,
            vec!["`127.0.0.1`", "qdrant.example", "10.1.2.3"],
        ),
        // Time may put this one right.
        (
            mine.issue_early(ip),
            FailureClass::Retry,
            vec!["not valid yet", "2300-01-01", "clock says"],
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let (gateway, url) = secured(&server, &identity);
        let tls = trusting(&mine, folder.path());
        let edge = device_at(&folder.path().join("data"), &url, tls);
        write(&edge, 0..1);
        let (failure, connections) = refused(&edge, &gateway);
        assert_eq!(failure.class, class, "{failure:?}");
        for word in words {
            assert!(failure.message.contains(word), "{word}: {failure:?}");
        }
        if class == FailureClass::Stop {
            assert_eq!(connections, 1, "{failure:?}");
        }
        assert_eq!(edge.shard().queue_status().expect("a queue").queued, 1);
        assert!(server.exchanges().is_empty());
    }
}

#[test]
fn an_authority_that_serves_with_its_own_certificate_is_told_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let identity = Authority::itself();
    let (gateway, url) = secured(&server, &identity);
    let tls = TlsSettings::default().ca_file(Some(identity.file(folder.path())));
    let edge = device_at(&folder.path().join("data"), &url, tls);
    let (failure, _) = refused(&edge, &gateway);
    assert_eq!(failure.class, FailureClass::Stop, "{failure:?}");
    assert!(failure.message.contains("CA:TRUE"), "{failure:?}");
}

#[test]
fn tls_where_there_is_none_and_none_where_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let gateway = Gateway::start(server.address(), GatewayKind::Relay);
    let url = format!("https://{}", gateway.address());
    let edge = device_at(&folder.path().join("a"), &url, TlsSettings::default());
    let (failure, connections) = refused(&edge, &gateway);
    assert_eq!(failure.class, FailureClass::Stop, "{failure:?}");
    assert!(
        failure.message.contains("does not speak TLS"),
        "{failure:?}"
    );
    assert!(failure.message.contains("http://"), "{failure:?}");
    assert_eq!(connections, 1);

    let (gateway, url) = secured(&server, &Authority::new().issue(&["127.0.0.1"]));
    let url = url.replace("https", "http");
    let edge = device_at(&folder.path().join("b"), &url, TlsSettings::default());
    let (failure, connections) = refused(&edge, &gateway);
    assert_eq!(failure.class, FailureClass::Stop, "{failure:?}");
    assert!(failure.message.contains("https://"), "{failure:?}");
    assert_eq!(connections, 1);
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let (servers, clients) = (Authority::new(), Authority::new());
    let config = servers
        .issue(&["127.0.0.1"])
        .server(Some(&clients), &["http/1.1"]);
    let gateway = Gateway::start(server.address(), GatewayKind::Tls(config));
    let url = format!("https://{}", gateway.address());
    let tls = trusting(&servers, folder.path());
    let edge = device_at(&folder.path().join("a"), &url, tls.clone());
    let (failure, _) = refused(&edge, &gateway);
    assert_eq!(failure.class, FailureClass::Stop, "{failure:?}");
    assert!(
        failure.message.contains("client_certificate_file"),
        "{failure:?}"
    );

    let file = clients.issue(&["device"]).file(folder.path());
    let tls = tls.client(Some(ClientCertificate::new(file.clone(), file)));
    let edge = device_at(&folder.path().join("b"), &url, tls.clone());
    write(&edge, 0..1);
    assert_eq!(sync(&edge).uploaded, 1);

    // One of somebody else.
    let stranger = folder.path().join("stranger");
    std::fs::create_dir(&stranger).expect("a folder");
    let file = servers.issue(&["device"]).file(&stranger);
    let tls = tls.client(Some(ClientCertificate::new(file.clone(), file)));
    let edge = device_at(&folder.path().join("c"), &url, tls);
    let (failure, _) = refused(&edge, &gateway);
    assert_eq!(failure.class, FailureClass::Stop, "{failure:?}");
    assert!(failure.message.contains("does not accept"), "{failure:?}");
}

#[test]
fn http2_is_spoken_where_the_server_offers_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let authority = Authority::new();
    let config = authority
        .issue(&["127.0.0.1"])
        .server(None, &["h2", "http/1.1"]);
    let gateway = Gateway::start(server.address(), GatewayKind::Http2(config));
    let url = format!("https://{}", gateway.address());
    let tls = trusting(&authority, folder.path());
    let edge = device_at(&folder.path().join("data"), &url, tls);
    write(&edge, 0..50);
    assert_eq!(sync(&edge).uploaded, 50);
    assert_eq!(server_points(&server).len(), 50);
    assert!(gateway.requests() > 5, "{}", gateway.requests());
    assert_eq!(gateway.connections(), 1);
}

/// The command, without what the tests' own environment says about proxies.
fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = edge_sync(data, arguments);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

/// The exit code, and all that it says.
fn run(mut command: Command) -> (i32, String) {
    let output = command.output().expect("the command runs");
    let said = [output.stderr, output.stdout].concat();
    let code = output.status.code().expect("an exit code");
    (code, String::from_utf8(said).expect("UTF-8"))
}

/// A shard with one point.
fn shard(data: &Path) {
    let edge = EdgeSync::builder(component(), data)
        .create(CONFIG)
        .expect("a shard");
    write(&edge, 0..1);
    edge.shard().close().expect("closed");
}

#[test]
fn the_command_trusts_whom_its_settings_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    shard(&data);
    let server = server();
    let authority = Authority::new();
    let (_gateway, url) = secured(&server, &authority.issue(&["127.0.0.1"]));
    let file = authority.file(folder.path());
    let sync = |name: &str, flags: &[&str], variable: Option<&Path>| {
        let arguments = [&["--url", &url, "--collection", name], flags, &["sync"]].concat();
        let mut command = command(&data, &arguments);
        if let Some(variable) = variable {
            command.env("SSL_CERT_FILE", variable);
            command.env_remove("SSL_CERT_DIR");
        }
        run(command)
    };
    let (code, said) = sync(COLLECTION, &[], None);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("not trusted"), "{said}");
    let nobody = folder.path().join("nobody.pem");
    std::fs::write(&nobody, "").expect("written");
    let (code, said) = sync(COLLECTION, &[], Some(&nobody));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
    let (code, said) = sync(COLLECTION, &["--ca-file", "nowhere.pem"], None);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("nowhere.pem"), "{said}");
    assert!(server.exchanges().is_empty());
    let (code, said) = sync(COLLECTION, &[], Some(&file));
    assert_eq!(code, 0, "{said}");
    let flag = file.to_str().expect("UTF-8");
    let (code, said) = sync(COLLECTION, &["--ca-file", flag], Some(&nobody));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_url_or_a_collection_that_cannot_be_one_is_refused_before_any_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    shard(&data);
    let server = server();
    let url = server.url();
    for (url, collection, why) in [
        (format!("{url}?x=1"), COLLECTION, "query"),
        (format!("{url}/#f"), COLLECTION, "fragment"),
        (format!(" {url}"), COLLECTION, "blanks"),
        (url.replace("//", "//u:hunter2@"), COLLECTION, "user names"),
        (url.clone(), "..", "no names of collections"),
        (url.clone(), ".", "no names of collections"),
    ] {
        for action in ["sync", "restore"] {
            let arguments = ["--url", &url, "--collection", collection, action];
            let (code, said) = run(command(&data, &arguments));
            assert_eq!(code, 2, "{url} {collection}: {said}");
            assert!(said.contains(why), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let arguments = ["--url", &url, "--collection", collection, "status"];
        let (code, said) = run(command(&data, &arguments));
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert!(server.exchanges().is_empty());
    // What means the same is the same server.
    let port = server.address().port();
    for url in [
        format!("HTTP://127.1:{port}/"),
        format!("http://0x7f.1:{port}"),
    ] {
        let arguments = ["--url", &url, "--collection", COLLECTION, "sync"];
        let (code, said) = run(command(&data, &arguments));
        assert_eq!(code, 0, "{url}: {said}");
    }
    assert_eq!(server_points(&server).len(), 1);
}

#[test]
fn requests_go_through_the_proxy_that_the_environment_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let authority = Authority::new();
    let file = authority.file(folder.path());
    let (tls, _) = secured(&server, &authority.issue(&["qdrant.test"]));
    let user = "Basic dXNlcjpwYXNz";
    // No name server knows the name; the proxy does.
    for (url, behind, variable) in [
        ("http://qdrant.test:6333", server.address(), "HTTP_PROXY"),
        ("https://qdrant.test", tls.address(), "HTTPS_PROXY"),
    ] {
        let data = folder.path().join(variable);
        shard(&data);
        let proxy = Gateway::start(behind, GatewayKind::Proxy(Some(user)));
        let settings = folder.path().join("settings.toml");
        let text = format!("attempts = 1\nca_file = {file:?}\n");
        std::fs::write(&settings, text).expect("written");
        let sync = |variables: &[(&str, String)]| {
            let flag = settings.to_str().expect("UTF-8");
            let arguments = [
                "--config-file",
                flag,
                "--url",
                url,
                "--collection",
                COLLECTION,
            ];
            let mut command = command(&data, &[&arguments[..], &["sync"]].concat());
            command.envs(variables.iter().map(|(name, value)| (name, value)));
            command.env("QDRANT_API_KEY", "secret-key");
            run(command)
        };
        let right = format!("http://user:pass@{}", proxy.address());
        let (code, said) = sync(&[(variable, right.clone())]);
        assert_eq!(code, 0, "{url}: {said}");
        assert!(proxy.requests() > 0);
        let told = said.matches("in clear").count();
        assert_eq!(told, usize::from(url.starts_with("http:")), "{said}");
        assert!(!said.contains("secret-key"), "{said}");

        let before = proxy.requests();
        let wrong = format!("http://user:wrong@{}", proxy.address());
        let (code, said) = sync(&[(variable, wrong)]);
        assert_eq!(code, if url.starts_with("https") { 7 } else { 6 }, "{said}");
        assert!(said.contains("407") || said.contains("password"), "{said}");
        assert!(!said.contains("wrong"), "{said}");
        assert!(proxy.requests() > before);

        let before = proxy.requests();
        let none = [(variable, right), ("NO_PROXY", "qdrant.test".to_owned())];
        let (code, said) = sync(&none);
        assert_eq!(code, 6, "{said}");
        assert!(said.contains("`qdrant.test` cannot be resolved"), "{said}");
        assert_eq!(proxy.requests(), before);
    }
    // A proxy is not for this machine.
    let data = folder.path().join("local");
    shard(&data);
    let proxy = Gateway::start(server.address(), GatewayKind::Proxy(None));
    let url = server.url();
    let mut command = command(&data, &["--url", &url, "--collection", COLLECTION, "sync"]);
    command.env("HTTP_PROXY", format!("http://{}", proxy.address()));
    let (code, said) = run(command);
    assert_eq!(code, 0, "{said}");
    assert_eq!(proxy.requests(), 0);
}

#[test]
fn a_key_of_the_environment_is_not_sent_where_a_folder_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    shard(&data);
    let server = server();
    let text = format!(
        "url = \"{}\"\ncollection = \"{COLLECTION}\"\n",
        server.url()
    );
    std::fs::write(folder.path().join("edge-sync.toml"), text).expect("written");
    let sync = |flags: &[&str], key: bool| {
        let mut command = command(&data, &[flags, &["sync"]].concat());
        command.current_dir(folder.path());
        if key {
            command.env("QDRANT_API_KEY", "hunter2-hunter2");
        }
        run(command)
    };
    let (code, said) = sync(&[], true);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("QDRANT_API_KEY"), "{said}");
    assert!(said.contains("--config-file"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(server.exchanges().is_empty());
    let (code, said) = sync(&["--config-file", "edge-sync.toml"], true);
    assert_eq!(code, 0, "{said}");
    // To this machine a key may go in clear.
    assert!(!said.contains("in clear"), "{said}");
    let (code, said) = sync(&[], false);
    assert_eq!(code, 0, "{said}");
}
