import Primitives
import Testing

@testable import Configuration

@Suite("Addresses")
struct AddressTests {
    @Test(
        "addresses to listen on",
        arguments: [
            (":8080", nil, 8080), ("8080", nil, 8080), (":0", nil, 0), ("127.0.0.1:80", "127.0.0.1", 80),
            ("0.0.0.0:65535", "0.0.0.0", 65535), ("[::1]:8080", "::1", 8080), ("[::]:1", "::", 1),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1", 1),
        ] as [(String, String?, UInt16)])
    func listen(_ text: String, _ host: String?, _ port: UInt16) {
        let expected = ListenAddress(host: host.flatMap { IPAddress($0) }, port: port)
        #expect(outcome { () throws(Invalid) in try ListenAddress(parsing: text) } == .success(expected))
    }

    @Test(
        "what is no address to listen on names the remedy",
        arguments: [
            ("", "`` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"),
            (":", "`:` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"),
            (":65536", "`:65536` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"),
            (":-1", "`:-1` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"),
            (":+1", "`:+1` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"),
            ("[::1]", "`[::1]` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"),
            ("127.0.0.1", "`127.0.0.1` has no port in 0...65535; write :8080, 127.0.0.1:8080 or [::1]:8080"),
            ("localhost:80", "`localhost` is not an IP address; write one such as 127.0.0.1:80, or :80"),
            ("*:80", "`*` is not an IP address; write one such as 127.0.0.1:80, or :80"),
            ("1.2.3:80", "`1.2.3` is not an IP address; write one such as 127.0.0.1:80, or :80"),
            ("::1:80", "`::1:80` needs brackets around the address: write [::1]:80"),
            ("[127.0.0.1]:80", "`[127.0.0.1]` is not an IPv6 address in brackets; write one such as [::1]:80"),
            ("[fe80::1%eth0]:80", "`[fe80::1%eth0]` is not an IPv6 address in brackets; write one such as [::1]:80"),
        ])
    func noListen(_ text: String, _ expected: String) {
        let result = outcome { () throws(Invalid) in try ListenAddress(parsing: text) }
        #expect(result == .failure(Refusal(message: expected)))
    }

    @Test(
        "backends",
        arguments: [
            ("http://localhost:8081", "localhost", 8081, "", "localhost:8081"),
            ("HTTP://LocalHost", "localhost", 80, "", "localhost"),
            ("http://10.0.0.7:80/", "10.0.0.7", 80, "", "10.0.0.7"),
            ("http://[2001:DB8::1]:1/a/b/", "[2001:db8::1]", 1, "/a/b", "[2001:db8::1]:1"),
            ("http://[::ffff:10.0.0.7]", "10.0.0.7", 80, "", "10.0.0.7"),
            ("http://my_host-1.example.:65535", "my_host-1.example.", 65535, "", "my_host-1.example.:65535"),
        ] as [(String, String, UInt16, String, String)])
    func backends(_ url: String, _ host: String, _ port: UInt16, _ basePath: String, _ authority: String) throws {
        let backend = try Configuration.Backend(parsing: url, weight: 3)
        #expect(backend.url == url)
        #expect(backend.scheme == .http)
        #expect(backend.host.description == host)
        #expect(backend.port == port)
        #expect(backend.basePath == basePath)
        #expect(backend.authority == authority)
        #expect(backend.weight == 3)
    }

    @Test(
        "what is no backend",
        arguments: [
            ("", "not a URL: the scheme is missing; write one such as http://host:port"),
            ("localhost:8081", "not a URL: the scheme is missing; write one such as http://host:port"),
            ("://h", "not a URL: the scheme is missing; write one such as http://host:port"),
            ("https://h", "`https://h`: TLS to backends does not exist yet; write http://"),
            ("ftp://h", "`ftp://h` has a scheme other than http; write http://host:port"),
            ("ftp://u:p@h", "a backend's URL can not hold a user or a password; remove them"),
            ("http://h?a", "`http://h?a` has a query or a fragment; remove it"),
            ("http://h/#", "`http://h/#` has a query or a fragment; remove it"),
            ("http://h:0", "the port is not a number in 1...65535; write one such as :8081"),
            ("http://h:", "the port is not a number in 1...65535; write one such as :8081"),
            ("http://h:1:2", "`http://h:1:2`: an IPv6 address stands in brackets, as in [::1]"),
            ("http://h:65536", "the port is not a number in 1...65535; write one such as :8081"),
            (
                "http://",
                "`http://`: the host is neither a name nor an address; write one such as localhost or 10.0.0.7"
            ),
            (
                "http://:80",
                "`http://:80`: the host is neither a name nor an address; write one such as localhost or 10.0.0.7"
            ),
            (
                "http://a..b",
                "`http://a..b`: the host is neither a name nor an address; write one such as localhost or 10.0.0.7"
            ),
            (
                "http://a%41",
                "`http://a%41`: the host is neither a name nor an address; write one such as localhost or 10.0.0.7"
            ),
            (
                "http://1.2.3",
                "`http://1.2.3`: the host is not an IPv4 address; write four numbers in 0...255 without leading zeros"
            ),
            (
                "http://1.2.3.04",
                "`http://1.2.3.04`: the host is not an IPv4 address; write four numbers in 0...255 without leading zeros"
            ),
            ("http://[::1", "`http://[::1`: the host is not an IPv6 address in brackets; write one such as [::1]"),
            ("http://[::1]x", "`http://[::1]x`: the host is not an IPv6 address in brackets; write one such as [::1]"),
            (
                "http://[1.2.3.4]",
                "`http://[1.2.3.4]`: the host is not an IPv6 address in brackets; write one such as [::1]"
            ),
            ("http://::1", "`http://::1`: an IPv6 address stands in brackets, as in [::1]"),
            ("http://h ost", "a URL can not hold spaces or characters beyond ASCII; percent-encode them"),
            ("http://h\r\nX: y", "a URL can not hold spaces or characters beyond ASCII; percent-encode them"),
            ("http://h/a/../b", "`/a/../b` has a dot segment; write the path that it means"),
            ("http://h/%2e", "`/%2e` has a character other than letters, digits and -._~!$&'()*+,=:@"),
        ])
    func noBackends(_ url: String, _ expected: String) {
        let result = outcome { () throws(Invalid) in try Configuration.Backend(parsing: url, weight: 1) }
        #expect(result == .failure(Refusal(message: expected)))
    }

    @Test(
        "paths lose their trailing slash",
        arguments: [
            ("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/api/v1/users/", "/api/v1/users"),
            ("/a.b/~c/...", "/a.b/~c/..."),
        ])
    func paths(_ text: String, _ expected: String) {
        #expect(outcome { () throws(Invalid) in try pathPrefix(text) } == .success(expected))
    }

    @Test(
        "paths that have a second spelling are refused",
        arguments: [
            ("", "`` does not start with a slash; write one such as /api"),
            ("api", "`api` does not start with a slash; write one such as /api"),
            ("/a?b", "`/a?b` has a query or a fragment; a path is what stands before `?` and `#`"),
            ("/a#", "`/a#` has a query or a fragment; a path is what stands before `?` and `#`"),
            ("/.", "`/.` has a dot segment; write the path that it means"),
            ("/a/../b", "`/a/../b` has a dot segment; write the path that it means"),
            ("/a/./", "`/a/./` has a dot segment; write the path that it means"),
            ("//", "`//` has an empty segment; write single slashes"),
            ("/a//b", "`/a//b` has an empty segment; write single slashes"),
            ("/a//", "`/a//` has an empty segment; write single slashes"),
            ("/a b", "`/a b` has a character other than letters, digits and -._~!$&'()*+,=:@"),
            ("/%41", "`/%41` has a character other than letters, digits and -._~!$&'()*+,=:@"),
            ("/a\\b", "`/a\\b` has a character other than letters, digits and -._~!$&'()*+,=:@"),
            ("/ä", "`/ä` has a character other than letters, digits and -._~!$&'()*+,=:@"),
        ])
    func noPaths(_ text: String, _ expected: String) {
        #expect(outcome { () throws(Invalid) in try pathPrefix(text) } == .failure(Refusal(message: expected)))
    }

    @Test("a path has 1,024 bytes at most")
    func longPath() {
        let longest = "/" + String(repeating: "a", count: 1_023)
        #expect(outcome { () throws(Invalid) in try pathPrefix(longest) } == .success(longest))
        #expect((try? pathPrefix(longest + "a")) == nil)
    }
}
