use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tidewater_common::granted_dirs::DirectoryGrants;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{CSV, read, rows, table};
use crate::{Source, SourceAccess, SourceError, SourceHosts, builtin};

const TIME: &str = "Wed, 01 Jan 2025 00:00:00 GMT";

/// A server of S3, Google Cloud Storage and Azure with one object, `p/day=1/a.csv`.
#[derive(Debug, Default)]
struct Server {
    /// Entity tag of the object.
    tag: Mutex<String>,
    /// Response to all requests, instead of that of a store.
    response: Mutex<Option<String>>,
    /// First lines and headers of all requests, in lower case.
    requests: Mutex<Vec<String>>,
}

impl Server {
    /// Starts a server; returns it with its port.
    async fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self::default());
        server.set_tag("\"one\"");
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.serve(stream).await;
            }
        });
        (server, port)
    }

    fn set_tag(&self, tag: &str) {
        tag.clone_into(&mut self.tag.lock().unwrap());
    }

    fn respond(&self, status: &str, header: &str, body: &str) {
        let length = body.len();
        let response = format!(
            "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        *self.response.lock().unwrap() = Some(response);
    }

    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap() == 0 {
                return;
            }
        }
        let head = head.to_ascii_lowercase();
        let response = self.response.lock().unwrap().clone();
        let response = response.unwrap_or_else(|| self.store_response(&head));
        self.requests.lock().unwrap().push(head);
        stream.write_all(response.as_bytes()).await.unwrap();
    }

    fn store_response(&self, head: &str) -> String {
        let tag = self.tag.lock().unwrap().clone();
        let size = CSV.len();
        let (status, body) = if head.contains("list-type=2") {
            let list = format!(
                "<ListBucketResult><Name>bucket</Name><KeyCount>1</KeyCount><IsTruncated>false\
                 </IsTruncated><Contents><Key>p/day=1/a.csv</Key><LastModified>\
                 2025-01-01T00:00:00.250Z</LastModified><ETag>{tag}</ETag><Size>{size}</Size>\
                 </Contents></ListBucketResult>"
            );
            ("200 OK", list)
        } else if head.contains("comp=list") {
            let list = format!(
                "<EnumerationResults><Blobs><Blob><Name>p/day=1/a.csv</Name><Properties>\
                 <Last-Modified>{TIME}</Last-Modified><Etag>{tag}</Etag><Content-Length>{size}\
                 </Content-Length><Content-Type>text/csv</Content-Type></Properties></Blob></Blobs>\
                 <NextMarker/></EnumerationResults>"
            );
            ("200 OK", list)
        } else if head.contains("if-match:") && !head.contains(&format!("if-match: {tag}")) {
            ("412 Precondition Failed", String::new())
        } else {
            ("200 OK", CSV.to_owned())
        };
        let length = body.len();
        let body = if head.starts_with("head ") { "" } else { &body };
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: {tag}\r\nLast-Modified: \
             {TIME}\r\nConnection: close\r\n\r\n{body}"
        )
    }

    fn first_lines(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|head| head.split(" http/").next().unwrap().to_owned()).collect()
    }
}

/// Directory with a secret directory and a spool.
struct Dirs {
    dir: tempfile::TempDir,
}

impl Dirs {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("secrets")).unwrap();
        Self { dir }
    }

    fn keys(&self, lines: &str) -> String {
        let file = self.dir.path().canonicalize().unwrap().join("secrets/keys");
        std::fs::write(&file, lines).unwrap();
        file.display().to_string()
    }

    /// Opens a source on a node that permits these hosts.
    async fn open(&self, hosts: &[&str], config: &Value) -> Result<Box<dyn Source>, SourceError> {
        let secrets = self.dir.path().join("secrets");
        let mut grants = DirectoryGrants::new(&[]);
        let access = SourceAccess::new(None, Some(&secrets), &mut grants).unwrap();
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let access = access.with_hosts(SourceHosts::new(hosts));
        builtin(access, self.dir.path().join("spool")).open("csv", config, table()).await
    }
}

fn anonymous(host: &str, port: u16) -> Value {
    json!({ "url": "s3://bucket/p", "endpoint": format!("http://{host}:{port}"), "allow_http": true })
}

#[tokio::test]
async fn s3_objects_are_read_with_keys_of_a_file() {
    let (server, port) = Server::start().await;
    let dirs = Dirs::new();
    let endpoint = format!("http://127.0.0.1:{port}");
    let file = dirs.keys(&format!(
        "access_key_id=mykey\nsecret_access_key=s3cr3t\nbucket=bucket\nendpoint={endpoint}\n"
    ));
    let config = json!({ "url": "s3://bucket/p/", "endpoint": endpoint, "allow_http": true,
                         "region": "eu-1", "credentials_file": file });
    let source = dirs.open(&["127.0.0.1"], &config).await.unwrap();

    let listing = source.list().await.unwrap();
    let [split] = listing.splits.as_slice() else { panic!("{listing:?}") };
    assert_eq!(split.name, "s3://bucket/p/day=1/a.csv");
    assert_eq!(split.bytes, CSV.len() as u64);
    assert_eq!(read(source.as_ref(), split).await, Ok(Some(rows())));
    server.set_tag("\"two\"");
    let error = read(source.as_ref(), split).await.unwrap_err();
    assert!(matches!(error, SourceError::Changed(_)), "{error:?}");

    let first_lines = server.first_lines();
    assert_eq!(first_lines[0], "get /bucket?list-type=2&prefix=p%2f");
    // The store has no versions, as the request for that of the first object shows.
    let object = "/bucket/p/day%3d1/a.csv";
    assert_eq!(
        first_lines[1..],
        [format!("head {object}"), format!("get {object}"), format!("get {object}")]
    );
    for head in server.requests.lock().unwrap().iter() {
        assert!(head.contains("credential=mykey/") && head.contains("/eu-1/s3/"), "{head}");
        assert!(!head.contains("s3cr3t"), "{head}");
    }
}

#[tokio::test]
async fn keys_are_not_sent_to_other_servers() {
    let (server, port) = Server::start().await;
    let dirs = Dirs::new();
    let keys = "access_key_id=mykey\nsecret_access_key=s3cr3t\n";
    for lines in ["", "bucket=bucket", "bucket=bucket\nendpoint=https://mine:9000"] {
        let mut config = anonymous("127.0.0.1", port);
        config["credentials_file"] = dirs.keys(&format!("{keys}{lines}")).into();
        let error = dirs.open(&["127.0.0.1"], &config).await.err().unwrap();
        assert!(matches!(error, SourceError::NotPermitted(_)), "{error:?}");
    }
    assert!(server.first_lines().is_empty());
}

#[tokio::test]
async fn google_and_azure_objects_are_read() {
    for (url, more, list) in [
        ("gs://bucket/p", json!({}), "get /bucket?list-type=2&prefix=p%2f"),
        (
            "az://bucket/p",
            json!({ "account": "store1" }),
            "get /bucket?restype=container&comp=list&prefix=p%2f",
        ),
    ] {
        let (server, port) = Server::start().await;
        let dirs = Dirs::new();
        let mut config = anonymous("127.0.0.1", port);
        config["url"] = url.into();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let source = dirs.open(&["127.0.0.1"], &config).await.unwrap();
        let listing = source.list().await.unwrap();
        let [split] = listing.splits.as_slice() else { panic!("{listing:?}") };
        assert_eq!(split.name, format!("{url}/day=1/a.csv"));
        assert_eq!(read(source.as_ref(), split).await, Ok(Some(rows())));
        server.set_tag("\"two\"");
        let error = read(source.as_ref(), split).await.unwrap_err();
        assert!(matches!(error, SourceError::Changed(_)), "{error:?}");
        assert_eq!(server.first_lines()[0], list);
        for head in server.requests.lock().unwrap().iter() {
            assert!(!head.contains("authorization"), "{head}");
        }
    }
}

#[tokio::test]
async fn objects_are_requested_from_permitted_hosts_only() {
    let (server, port) = Server::start().await;
    let dirs = Dirs::new();
    let other_port = format!("127.0.0.1:{}", port ^ 1);
    for (hosts, host, expected) in [
        (&[][..], "127.0.0.1", "127.0.0.1 is a loopback address"),
        (&[], "0x7f.1", "127.0.0.1 is a loopback address"),
        (&[], "localhost", "which is a loopback address"),
        (&["localhost"], "localhost", "which is a loopback address"),
        (&["10.0.0.0/8"], "127.0.0.1", "not in --source-hosts"),
        (&[other_port.as_str()], "127.0.0.1", "not in --source-hosts"),
    ] {
        let source = dirs.open(hosts, &anonymous(host, port)).await.unwrap();
        match source.list().await {
            Err(SourceError::NotPermitted(text)) => {
                assert!(text.starts_with("s3://bucket/p: ") && text.contains(expected), "{text}");
            }
            other => panic!("{host}: {other:?}"),
        }
    }
    assert!(server.first_lines().is_empty());
    let source = dirs.open(&["127.0.0.0/8", "::1"], &anonymous("localhost", port)).await.unwrap();
    assert_eq!(source.list().await.unwrap().splits.len(), 1);
}

#[tokio::test]
async fn responses_are_not_repeated_in_errors() {
    let (server, port) = Server::start().await;
    let dirs = Dirs::new();
    let source = dirs.open(&["127.0.0.1"], &anonymous("127.0.0.1", port)).await.unwrap();
    let denied = "<Error><Code>AccessDenied</Code><Message>precious</Message></Error>";
    let location = format!("Location: http://127.0.0.1:{port}/elsewhere\r\n");
    for (status, header, body, expected) in [
        ("403 Forbidden", "", denied, "the store returns the status 403 Forbidden: AccessDenied"),
        ("404 Not Found", "", "precious", "the store returns the status 404 Not Found"),
        ("200 OK", "", "<html><b>precious</html>", "is not that of an object store"),
        ("302 Found", location.as_str(), "precious", "the store returns the status 302 Found"),
        ("301 Moved Permanently", "", "precious", "the store redirects the request: check region"),
    ] {
        server.respond(status, header, body);
        let requests = server.first_lines().len();
        let error = source.list().await.unwrap_err();
        assert!(matches!(error, SourceError::Unreadable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("s3://bucket/p: ") && text.contains(expected), "{text}");
        assert!(!text.contains("precious"), "{text}");
        assert_eq!(server.first_lines().len(), requests + 1, "{status}");
    }
}
