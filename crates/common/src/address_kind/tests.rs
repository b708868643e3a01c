use super::AddressKind::*;
use super::*;

fn kind(text: &str) -> AddressKind {
    AddressKind::of(text.parse().unwrap())
}

#[test]
fn addresses_have_kinds_of_their_networks() {
    for (text, expected) in [
        ("0.1.2.3", Unspecified),
        ("::", Unspecified),
        ("127.9.9.9", Loopback),
        ("::1", Loopback),
        ("10.1.2.3", Private),
        ("100.64.0.1", Private),
        ("100.100.100.201", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("fc00::1", Private),
        ("fd00:ec3::254", Private),
        ("fec0::1", Private),
        ("169.254.169.254", LinkLocal),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("100.100.100.200", Metadata),
        ("168.63.129.16", Metadata),
        ("192.0.0.192", Metadata),
        ("fd00:ec2::254", Metadata),
        ("fd20:ce::254", Metadata),
        ("224.0.0.1", Multicast),
        ("ff02::1", Multicast),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Reserved),
        ("192.0.0.8", Other),
        ("192.0.2.1", Other),
        ("198.18.0.1", Other),
        ("2001::1", Other),
        ("2001:db8::1", Other),
        ("100::1", Other),
        ("4000::1", Other),
        ("168.63.129.17", Public),
        ("8.8.8.8", Public),
        ("2606:4700:4700::1111", Public),
    ] {
        assert_eq!(kind(text), expected, "{text}");
    }
}

#[test]
fn embedded_ipv4_addresses_decide_the_kind() {
    for (prefix, public) in [
        ("::ffff:", Public),
        ("64:ff9b::", Public),
        ("::", Other),
        ("::ffff:0:", Other),
        ("64:ff9b:1::", Other),
    ] {
        for (address, expected) in [
            ("127.0.0.1", Loopback),
            ("169.254.169.254", LinkLocal),
            ("168.63.129.16", Metadata),
            ("10.0.0.1", Private),
            ("192.0.2.1", Other),
            ("8.8.8.8", public),
        ] {
            let text = format!("{prefix}{address}");
            assert_eq!(kind(&text), expected, "{text}");
        }
    }
    for (text, expected) in [
        ("2002:7f00:1::", Loopback),
        ("2002:a9fe:a9fe::1", LinkLocal),
        ("2002:a00:1::1", Private),
        ("2002:808:808::1", Public),
        // Not in the /96 network of NAT64.
        ("64:ff9b::1:0:808:808", Other),
    ] {
        assert_eq!(kind(text), expected, "{text}");
    }
}

#[test]
fn special_purpose_addresses_are_not_public() {
    for text in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.9.9.9",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::808:808",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!kind(text).is_public(), "{text}");
    }
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "100.128.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "193.0.0.1",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
    ] {
        assert!(kind(text).is_public(), "{text}");
    }
}

#[test]
fn addresses_of_private_networks_are_not_special() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:7f00:1::",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "febf::1",
        "ff02::1",
    ] {
        assert!(kind(text).is_special(), "{text}");
    }
    for text in [
        "10.0.0.1",
        "100.100.100.201",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "8.8.8.8",
        "::808:808",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "100::1",
        "2001:db8::1",
        "2606:4700:4700::1111",
        "fd00:ec3::254",
        "fc00::1",
        "fec0::1",
    ] {
        assert!(!kind(text).is_special(), "{text}");
    }
}
