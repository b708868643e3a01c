//! A server of S3 that keeps the objects of one bucket in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request: its first line without the version, its headers in lower case, and its body.
struct Request {
    line: String,
    head: String,
    body: Vec<u8>,
}

/// Status and body of a response.
type Response = (&'static str, Vec<u8>);

#[derive(Debug, Default)]
pub(super) struct S3Server {
    /// Objects of the bucket by their keys.
    pub(super) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Parts of the only upload.
    parts: Mutex<BTreeMap<u32, Vec<u8>>>,
    /// First lines of all requests.
    lines: Mutex<Vec<String>>,
    /// Headers of all requests in lower case.
    pub(super) heads: Mutex<Vec<String>>,
    /// Status of all requests with this method instead of that of a store. An empty one: no response.
    pub(super) refused: Mutex<Option<(&'static str, &'static str)>>,
}

impl S3Server {
    /// Starts a server; returns it with its port.
    pub(super) async fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self::default());
        let accepting = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = Arc::clone(&accepting);
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        (server, port)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until a request has begun with this text.
    pub(super) async fn wait_for(&self, begin: &str) {
        for _ in 0..1_000 {
            if self.lines().iter().any(|line| line.starts_with(begin)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no request {begin}: {:?}", self.lines());
    }

    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let Some(request) = read_request(&mut stream).await else { return };
        self.lines.lock().unwrap().push(request.line.clone());
        self.heads.lock().unwrap().push(request.head.clone());
        let refused = *self.refused.lock().unwrap();
        let (status, body) = match refused {
            Some((method, "")) if request.line.starts_with(method) => {
                // Until the client closes the connection.
                let _ = stream.read_u8().await;
                return;
            }
            Some((method, status)) if request.line.starts_with(method) => {
                (status, b"<Error><Code>Refused</Code><Message>precious</Message></Error>".into())
            }
            _ => self.response(&request),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"tag\"\r\nLast-Modified: \
             Wed, 01 Jan 2025 00:00:00 GMT\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        if !request.line.starts_with("HEAD ") {
            stream.write_all(&body).await.unwrap();
        }
        stream.shutdown().await.unwrap();
    }

    fn response(&self, request: &Request) -> Response {
        let (method, url) = request.line.split_once(' ').unwrap();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let key = path.strip_prefix("/bucket").unwrap().trim_start_matches('/').to_owned();
        let field = |name: &str| {
            let mut fields = query.split('&').filter_map(|field| field.split_once('='));
            fields.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        let mut objects = self.objects.lock().unwrap();
        let mut parts = self.parts.lock().unwrap();
        let is_new = request.head.contains("if-none-match: *");
        match (method, field("uploadId")) {
            ("GET", _) if field("list-type").is_some() => {
                let prefix = field("prefix").unwrap_or_default().replace("%2F", "/");
                ("200 OK", listing(objects.keys().filter(|key| key.starts_with(&prefix))))
            }
            ("GET" | "HEAD", _) => match objects.get(&key) {
                Some(object) => ("200 OK", object.clone()),
                None => ("404 Not Found", Vec::new()),
            },
            ("PUT", Some(_)) => {
                let number = field("partNumber").unwrap().parse().unwrap();
                parts.insert(number, request.body.clone());
                ("200 OK", Vec::new())
            }
            ("PUT", None) if is_new && objects.contains_key(&key) => {
                ("412 Precondition Failed", Vec::new())
            }
            ("PUT", None) => {
                objects.insert(key, request.body.clone());
                ("200 OK", Vec::new())
            }
            ("POST", Some(_)) => {
                let object = std::mem::take(&mut *parts).into_values().flatten().collect();
                objects.insert(key, object);
                let body = "<CompleteMultipartUploadResult><ETag>\"tag\"</ETag>\
                            </CompleteMultipartUploadResult>";
                ("200 OK", body.into())
            }
            ("DELETE", Some(_)) => {
                parts.clear();
                ("204 No Content", Vec::new())
            }
            ("POST", None) if query.starts_with("uploads") => {
                let body = "<InitiateMultipartUploadResult><UploadId>1</UploadId>\
                            </InitiateMultipartUploadResult>";
                ("200 OK", body.into())
            }
            ("POST", None) if query.starts_with("delete") => {
                let body = String::from_utf8(request.body.clone()).unwrap();
                let (_, rest) = body.split_once("<Key>").unwrap();
                let (key, _) = rest.split_once("</Key>").unwrap();
                objects.remove(key);
                let deleted =
                    format!("<DeleteResult><Deleted><Key>{key}</Key></Deleted></DeleteResult>");
                ("200 OK", deleted.into())
            }
            _ => ("501 Not Implemented", Vec::new()),
        }
    }
}

fn listing<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<u8> {
    let contents = keys.map(|key| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2025-01-01T00:00:00.250Z</LastModified>\
             <ETag>\"tag\"</ETag><Size>1</Size></Contents>"
        )
    });
    let contents: String = contents.collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
        .into()
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    let mut head = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    while !head.ends_with("\r\n\r\n") && head != "\r\n" {
        stream.read_line(&mut head).await.ok().filter(|length| *length > 0)?;
    }
    let head = head.to_ascii_lowercase();
    let lines = head.lines().filter_map(|line| line.strip_prefix("content-length: "));
    let length = lines.map(|length| length.parse().unwrap()).next().unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let line = line.split(" HTTP/").next().unwrap().to_owned();
    Some(Request { line, head, body })
}
