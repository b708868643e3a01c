use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{CSV, read, rows, table};
use crate::{Source, SourceAccess, SourceError, builtin};

/// An S3 server with one object, `p/day=1/a.csv`.
#[derive(Debug, Default)]
struct Server {
    /// Entity tag of the object.
    tag: Mutex<String>,
    /// First lines and headers of all requests, in lower case.
    requests: Mutex<Vec<String>>,
}

impl Server {
    /// Starts a server; returns its URL.
    async fn start(self: Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                self.serve(stream).await;
            }
        });
        format!("http://{address}")
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
        let response = self.response(&head);
        self.requests.lock().unwrap().push(head);
        stream.write_all(response.as_bytes()).await.unwrap();
    }

    fn response(&self, head: &str) -> String {
        let tag = self.tag.lock().unwrap().clone();
        let time = "Wed, 01 Jan 2025 00:00:00 GMT";
        let (status, body) = if head.contains("list-type=2") {
            let size = CSV.len();
            let list = format!(
                "<ListBucketResult><Name>bucket</Name><KeyCount>1</KeyCount><IsTruncated>false\
                 </IsTruncated><Contents><Key>p/day=1/a.csv</Key><LastModified>\
                 2025-01-01T00:00:00.250Z</LastModified><ETag>{tag}</ETag><Size>{size}</Size>\
                 </Contents></ListBucketResult>"
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
             {time}\r\nConnection: close\r\n\r\n{body}"
        )
    }
}

#[tokio::test]
async fn s3_objects_are_read_with_keys_of_a_file() {
    let server = Arc::new(Server::default());
    "\"one\"".clone_into(&mut server.tag.lock().unwrap());
    let endpoint = Arc::clone(&server).start().await;
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().canonicalize().unwrap().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let file = secrets.join("keys");
    std::fs::write(&file, "access_key_id=mykey\nsecret_access_key=s3cr3t\n").unwrap();
    let access = SourceAccess::new(None, Some(&secrets), &[]).unwrap();
    let kinds = builtin(access, dir.path().join("spool"));
    let config = json!({ "url": "s3://bucket/p/", "endpoint": endpoint, "allow_http": true,
                         "region": "eu-1", "credentials_file": file });
    let source: Box<dyn Source> = kinds.open("csv", &config, table()).await.unwrap();

    let listing = source.list().await.unwrap();
    let [split] = listing.splits.as_slice() else { panic!("{listing:?}") };
    assert_eq!(split.name, "s3://bucket/p/day=1/a.csv");
    assert_eq!(split.bytes, CSV.len() as u64);
    assert_eq!(read(source.as_ref(), split).await, Ok(Some(rows())));
    "\"two\"".clone_into(&mut server.tag.lock().unwrap());
    let error = read(source.as_ref(), split).await.unwrap_err();
    assert!(matches!(error, SourceError::Changed(_)), "{error:?}");

    let requests = server.requests.lock().unwrap();
    let first_lines: Vec<&str> =
        requests.iter().map(|head| head.split(" http/").next().unwrap()).collect();
    assert_eq!(first_lines[0], "get /bucket?list-type=2&prefix=p%2f");
    // The store has no versions, as the request for that of the first object shows.
    let object = "/bucket/p/day%3d1/a.csv";
    assert_eq!(
        first_lines[1..],
        [format!("head {object}"), format!("get {object}"), format!("get {object}")]
    );
    for head in requests.iter() {
        assert!(head.contains("credential=mykey/") && head.contains("/eu-1/s3/"), "{head}");
        assert!(!head.contains("s3cr3t"), "{head}");
    }
}
