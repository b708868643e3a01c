use super::*;

fn hosts(entries: &[&str]) -> SourceHosts {
    SourceHosts::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
}

fn permits(hosts: &SourceHosts, host: &str, port: u16, address: &str) -> bool {
    hosts.check(host, port, address.parse().unwrap()).is_ok()
}

#[test]
fn special_addresses_are_refused_by_default() {
    for (address, expected) in [
        ("127.0.0.1", false),
        ("169.254.169.254", false),
        ("::ffff:127.0.0.1", false),
        ("fd00:ec2::254", false),
        ("10.0.0.1", true),
        ("8.8.8.8", true),
        ("::ffff:10.0.0.1", true),
        ("fc00::1", true),
    ] {
        assert_eq!(permits(&SourceHosts::default(), "db", 5_432, address), expected, "{address}");
    }
}

#[test]
fn entries_permit_their_hosts_only() {
    for (entry, host, port, address, expected) in [
        ("db.example.org", "db.example.org", 5_432, "10.0.0.1", true),
        ("DB.example.org.", "db.EXAMPLE.org", 5_432, "10.0.0.1", true),
        ("db.example.org", "db.example.org.", 5_432, "10.0.0.1", true),
        ("db.example.org", "x.db.example.org", 5_432, "10.0.0.1", false),
        ("db.example.org:5432", "db.example.org", 5_432, "10.0.0.1", true),
        ("db.example.org:5432", "db.example.org", 5_433, "10.0.0.1", false),
        ("*.example.org", "db.example.org", 1, "10.0.0.1", true),
        ("*.example.org:2", "db.example.org", 1, "10.0.0.1", false),
        ("*.example.org", "example.org", 1, "10.0.0.1", false),
        ("*.example.org", "db.badexample.org", 1, "10.0.0.1", false),
        ("10.0.0.0/8", "any", 1, "10.255.0.1", true),
        ("10.1.2.3/8", "10.255.0.1", 1, "10.255.0.1", true),
        ("10.0.0.0/8", "any", 1, "11.0.0.0", false),
        ("10.0.0.0/8", "any", 1, "::ffff:10.0.0.1", true),
        ("10.0.0.1", "any", 1, "10.0.0.1", true),
        ("10.0.0.1", "any", 1, "10.0.0.2", false),
        ("10.0.0.1:5432", "any", 5_432, "10.0.0.1", true),
        ("10.0.0.1:5432", "any", 1, "10.0.0.1", false),
        ("fc00::/7", "any", 1, "fd00::1", true),
        ("[fc00::1]:5432", "any", 5_432, "fc00::1", true),
        ("::/0", "any", 1, "10.0.0.1", false),
    ] {
        assert_eq!(
            permits(&hosts(&[entry]), host, port, address),
            expected,
            "{entry}: {host}:{port}, {address}"
        );
    }
    let several = hosts(&["db.example.org", "127.0.0.0/8"]);
    assert!(permits(&several, "db.example.org", 1, "10.0.0.1"));
    assert!(permits(&several, "localhost", 1, "127.0.0.1"));
    assert!(!permits(&several, "other", 1, "10.0.0.1"));
}

#[test]
fn mapped_network_permits_its_ipv4_addresses() {
    for (entry, address, expected) in [
        ("::ffff:10.0.0.0/104", "10.255.0.1", true),
        ("::ffff:10.0.0.0/104", "::ffff:10.255.0.1", true),
        ("::ffff:10.0.0.0/104", "11.0.0.0", false),
        ("::ffff:10.0.0.1/128", "10.0.0.1", true),
        ("::ffff:10.0.0.1/128", "10.0.0.2", false),
        ("::ffff:0.0.0.0/96", "8.8.8.8", true),
        ("::ffff:0.0.0.0/96", "127.0.0.1", false),
        ("::ffff:127.0.0.0/104", "127.0.0.1", true),
        // 126.0.0.0/7.
        ("::ffff:127.0.0.0/103", "127.0.0.1", false),
    ] {
        assert_eq!(permits(&hosts(&[entry]), "db", 1, address), expected, "{entry}: {address}");
    }
}

#[test]
fn special_addresses_need_entries_of_such_addresses() {
    for (entry, address, expected) in [
        // A name may resolve to any address.
        ("db", "127.0.0.1", false),
        ("db", "169.254.169.254", false),
        ("0.0.0.0/0", "10.0.0.1", true),
        ("0.0.0.0/0", "127.0.0.1", false),
        ("0.0.0.0/0", "169.254.169.254", false),
        ("100.64.0.0/10", "100.100.100.200", false),
        ("100.100.100.200", "100.100.100.200", true),
        ("127.0.0.0/8", "127.0.0.1", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "127.0.0.2", false),
        ("169.254.0.0/16", "169.254.169.254", true),
        ("::/0", "::1", false),
        ("fd00::/8", "fd00:ec2::254", false),
        ("::1", "::1", true),
        ("fe80::/10", "fe80::1", true),
    ] {
        assert_eq!(permits(&hosts(&[entry]), "db", 1, address), expected, "{entry}: {address}");
    }
}

#[test]
fn malformed_entries_are_refused() {
    for text in [
        "",
        " ",
        "*",
        "*.",
        "x.*.org",
        "a b",
        "a:",
        "a:0",
        "a:65536",
        ":5432",
        "https://a",
        "a/b",
        "10.0.0.0/33",
        "10.0.0.0/",
        "::/129",
        "::ffff:10.0.0.0/95",
        "::ffff:10.0.0.0/129",
        "10.0.0.0/8:5432",
        "10.0.0.1:0",
        "[::1]",
        "u@a",
    ] {
        assert_eq!(text.parse::<SourceHost>(), Err(SourceHostError), "{text:?}");
    }
}

#[tokio::test]
async fn hosts_resolve_to_permitted_addresses() {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let mixed = [address("127.0.0.1:0"), address("10.0.0.1:0")];
    let permitted = SourceHosts::default().permitted("db", 5_432, &mixed).unwrap();
    assert_eq!(permitted, [mixed[1]]);
    assert!(matches!(SourceHosts::default().permitted("db", 1, &[]), Err(HostError::Lookup(_))));
    let loopback = hosts(&["127.0.0.0/8", "::1"]);
    let found = loopback.resolve("127.0.0.1", 5_432).await.unwrap();
    assert_eq!(found, [address("127.0.0.1:5432")]);
    // Another form of the same address.
    for host in ["localhost", "127.1", "2130706433"] {
        let error = SourceHosts::default().resolve(host, 5_432).await.unwrap_err();
        assert!(matches!(error, HostError::Refused(_)), "{host}: {error}");
    }
}

#[test]
fn refused_host_has_address_and_remedy() {
    for (entries, host, address, expected) in [
        (&[][..], "db", "127.0.0.1", "db is 127.0.0.1, which is a loopback address, and this node"),
        (&[], "::1", "::1", "::1 is a loopback address"),
        (&[], "::1", "::1", "with --source-hosts, which names [::1]:5432 and all other hosts"),
        (&["db"], "db", "127.0.0.1", "not in --source-hosts of this node: add 127.0.0.1:5432, bec"),
        (&["a"], "db", "10.0.0.1", "db is 10.0.0.1, which is not in --source-hosts of this node"),
        (&["a"], "db", "10.0.0.1", "add db:5432"),
        (&["a"], "10.0.0.1", "10.0.0.1", "10.0.0.1 is not in --source-hosts of this node: add 10."),
    ] {
        let refused = hosts(entries).check(host, 5_432, address.parse().unwrap()).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
}
