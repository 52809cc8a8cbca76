//! What stands in front of a server: it answers some requests itself, and passes the others on.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// An answer of its own.
#[derive(Clone)]
pub struct Canned {
    /// The status line after `HTTP/1.1`, and headers, a line each.
    pub head: Vec<String>,
    /// The body, which ends with the connection unless a `content-length` says so.
    pub body: Vec<u8>,
    /// Keep the connection open after that, and say nothing.
    pub silent: bool,
}

impl Canned {
    /// A path that is not there, as a server says it that does not know it.
    pub fn no_such_path() -> Self {
        Self {
            head: vec!["404 Not Found".to_owned()],
            body: Vec::new(),
            silent: false,
        }
    }

    /// 200 with this content type.
    pub fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            head: vec!["200 OK".to_owned(), format!("content-type: {content_type}")],
            body: body.into(),
            silent: false,
        }
    }

    /// Adds a header.
    pub fn header(mut self, line: &str) -> Self {
        self.head.push(line.to_owned());
        self
    }

    /// A body whose length is announced and of which nothing comes.
    pub fn empty_of(length: usize) -> Self {
        Self::ok("application/octet-stream", "").header(&format!("content-length: {length}"))
    }

    /// JSON in Qdrant's envelope.
    pub fn result(result: &serde_json::Value) -> Self {
        let body = serde_json::json!({ "result": result, "status": "ok", "time": 0.0 });
        Self::ok("application/json", body.to_string())
    }
}

/// How often an answer is given; then the request is passed on.
type Route = (&'static str, String, Option<u32>, Canned);

/// A running front. It ends with the test's process; its connections end with it.
pub struct Front {
    address: SocketAddr,
    routes: Arc<Mutex<Vec<Route>>>,
    seen: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Front {
    /// Stands in front of `server`.
    pub fn of(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let front = Self {
            address,
            routes: Arc::default(),
            seen: Arc::default(),
            ended: Arc::default(),
        };
        let (routes, seen) = (Arc::clone(&front.routes), Arc::clone(&front.seen));
        let ended = Arc::clone(&front.ended);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (routes, seen) = (Arc::clone(&routes), Arc::clone(&seen));
                let ended = Arc::clone(&ended);
                // A connection that breaks is the client's business.
                thread::spawn(move || drop(serve(stream, server, &routes, &seen, &ended)));
            }
        });
        front
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers requests of this method whose path (without query) ends like this, `times` times or
    /// for ever.
    pub fn answer(&self, method: &'static str, path_end: &str, times: Option<u32>, canned: Canned) {
        let mut routes = self.routes.lock().expect("no panic");
        routes.push((method, path_end.to_owned(), times, canned));
    }

    /// Passes everything on from now on.
    pub fn clear(&self) {
        self.routes.lock().expect("no panic").clear();
    }

    /// `METHOD path` of every request so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How many requests there were of this method and path end.
    pub fn count(&self, method: &str, path_end: &str) -> usize {
        let is_one = |line: &&String| {
            let path = line.split_once('?').map_or(line.as_str(), |(path, _)| path);
            path.starts_with(method) && path.ends_with(path_end)
        };
        self.seen().iter().filter(is_one).count()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    routes: &Mutex<Vec<Route>>,
    seen: &Mutex<Vec<String>>,
    ended: &AtomicBool,
) -> io::Result<()> {
    let (head, rest) = read_head(&mut client)?;
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    seen.lock()
        .expect("no panic")
        .push(format!("{method} {target}"));
    let canned = {
        let mut routes = routes.lock().expect("no panic");
        let found = routes.iter_mut().find(|(on, end, times, _)| {
            *on == method && path.ends_with(end.as_str()) && *times != Some(0)
        });
        found.map(|(_, _, times, canned)| {
            if let Some(times) = times {
                *times -= 1;
            }
            canned.clone()
        })
    };
    let Some(canned) = canned else {
        return pass_on(client, server, &head, &rest);
    };
    write!(
        client,
        "HTTP/1.1 {}\r\nconnection: close\r\n\r\n",
        canned.head.join("\r\n")
    )?;
    client.write_all(&canned.body)?;
    client.flush()?;
    while canned.silent && !ended.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The head with its empty line, and what was read of the body.
fn read_head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).map_err(io::Error::other)?;
            return Ok((head, rest));
        }
        match client.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// One exchange with the server.
fn pass_on(client: TcpStream, server: SocketAddr, head: &str, rest: &[u8]) -> io::Result<()> {
    let mut upstream = TcpStream::connect(server)?;
    // Each request is looked at, so each comes on a connection of its own.
    let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    upstream.write_all(head.as_bytes())?;
    upstream.write_all(rest)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let mut to_client = client;
    let copied = io::copy(&mut upstream, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    copied.map(drop)
}
