import Testing

@testable import Transforms

/// What a path gives for a pattern: the groups, from `{1}` on; `nil` where it does not match.
private func groups(_ pattern: String, _ path: String) throws -> [String]? {
    let bytes = Array(path.utf8)
    var captures: [Range<Int>] = []
    guard try PathPattern(pattern).match(bytes.span, captures: &captures) else { return nil }
    #expect(captures.first == 0..<bytes.count)
    return captures.dropFirst().map { String(decoding: bytes[$0], as: UTF8.self) }
}

@Suite("Patterns of paths")
struct PatternTests {
    @Test(
        "match whole paths, and give their groups",
        arguments: [
            ("/a", "/a", []), ("/a", "/ab", nil), ("/a", "x/a", nil), ("/a.c", "/abc", []), ("/a\\.c", "/abc", nil),
            ("/users/([0-9]+)", "/users/42", ["42"]), ("/users/([0-9]+)", "/users/", nil),
            ("/users/(\\d+)/?", "/users/42/", ["42"]), ("/([^/]+)/(.*)", "/a/b/c", ["a", "b/c"]),
            ("/(a|ab)(c|bcd)(d*)", "/abcd", ["a", "bcd", ""]), ("/(a+)(a*)", "/aaa", ["aaa", ""]),
            ("/(a+?)(a*)", "/aaa", ["a", "aa"]), ("/(?:a|b)+/(c)?", "/abba/", [""]),
            ("/(?:a|b)+/(c)?", "/abba/c", ["c"]),
            ("/a{2}", "/aa", []), ("/a{2}", "/aaa", nil), ("/a{2,}", "/aaaa", []),
            ("/(a{1,2})(a{0,9})", "/aaa", ["aa", "a"]),
            ("/[a-c_-]+", "/a_-c", []), ("/[^a]", "/a", nil), ("/[]a]", "/]", []), ("/[\\d\\w]", "/Z", []),
            ("/\\W", "/-", []),
            ("/(a*)*", "/aaa", ["aaa"]), ("/(a|b)*", "/ab", ["b"]), ("", "", []), ("/|/x", "/x", []),
            ("/(|x)y", "/y", [""]),
            ("/\\(x\\)", "/(x)", []), ("/%20", "/%20", []),
        ] as [(String, String, [String]?)])
    func matches(pattern: String, path: String, expected: [String]?) throws {
        #expect(try groups(pattern, path) == expected)
    }

    @Test(
        "say what is wrong with them",
        arguments: [
            ("(", "a `(` without its `)`"), (")", "a `)` without its `(`"), ("[a", "a `[` without its `]`"),
            ("*a", "* repeats nothing; write \\* for the sign"), ("a\\", "ends in a backslash"),
            ("^/a", "a pattern matches the whole path; leave out ^, or write \\^ for the sign"),
            ("/a\\b", "\\b is not known; known are \\d, \\D, \\w, \\W and \\ before a sign"),
            ("(?=a)", "`(?` knows `(?:` alone"),
            ("a{", "`{` without a number; write {2}, {2,} or {2,4}, or \\{ for the sign"),
            ("a{3,2}", "a count that is none; write {2}, {2,} or {2,4}"),
            ("a{999}", "a count that is none; write {2}, {2,} or {2,4}"),
            ("[z-a]", "a range of a class that is none; write [a-z]"),
            ("(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)", "more than 9 groups; write (?:…) for those that capture nothing"),
        ])
    func errors(pattern: String, message: String) {
        #expect(throws: TransformError(message: message)) { try PathPattern(pattern) }
    }

    @Test("have a bounded size, however they are nested")
    func bounded() throws {
        #expect(throws: TransformError.self) { try PathPattern("(?:(?:(?:(?:a{99}){99}){99}){99}){99}") }
        #expect(throws: TransformError.self) { try PathPattern(String(repeating: "(?:", count: 40)) }
        #expect(throws: Never.self) { try PathPattern("/(?:a{10}){20}") }
    }

    @Test("read a path once, whatever it is: those that backtracking would never come to the end of")
    func linear() throws {
        let path = "/" + String(repeating: "a", count: 8_000) + "!"
        for pattern in ["/(a*)*b", "/(a|aa)+", "/(a|a)*b", "/(.*)(.*)(.*)(.*)x", "/(?:a?){60}a{60}b"] {
            #expect(try groups(pattern, path) == nil, "\(pattern)")
        }
    }
}

@Suite("Templates, names, origins, codings")
struct TransformValueTests {
    @Test("a template is its texts and its variables")
    func template() throws {
        #expect(
            try Template("a{client}b{{c}}{rest}{2}", groups: 2, hasRest: true).parts
                == [
                    .text(Array("a".utf8)), .variable(.client), .text(Array("b{c}".utf8)), .rest, .group(2),
                ])
        #expect(try Template("").parts == [])
    }

    @Test(
        "a URL leads to the host that was asked for where that is part of its own",
        arguments: [
            ("https://{host}/a", true), ("http://www.{hostname}", true), ("https://{scheme}.{hostname}:1", true),
            ("https://a.example/{host}", false), ("https://a.example?{host}", false), ("/{host}", false),
            ("https://a.example{path}", false), ("", false),
        ])
    func leadsToHost(text: String, leads: Bool) throws {
        #expect(try Template(text).leadsToHost == leads)
    }

    @Test(
        "a template that is none says why",
        arguments: [
            ("{", "a `{` without its `}`; write {{ for the sign"),
            ("}", "a `}` without its `{`; write }} for the sign"),
            ("{1}", "{1} is no group: there is no pattern with groups"),
            (
                "{clien}",
                "{clien} is not one of {client}, {scheme}, {host}, {hostname}, {method}, {path}, {query}, {service}, {user}, {org}, {tier}, {apiKey}, {requestID}, {traceID}"
            ),
        ])
    func noTemplate(text: String, message: String) {
        #expect(throws: TransformError(message: message)) { try Template(text) }
    }

    @Test(
        "an origin is one, or a host's names",
        arguments: [
            ("https://a.example", "https://a.example", true), ("https://a.example", "https://a.example.evil", false),
            ("https://a.example", "http://a.example", false),
            ("https://a.example:8443", "https://a.example:8443", true),
            ("https://a.example", "https://a.example:8443", false),
            ("https://*.a.example", "https://x.a.example", true),
            ("https://*.a.example", "https://x.y.a.example", true), ("https://*.a.example", "https://a.example", false),
            ("https://*.a.example", "https://.a.example", false), ("https://*.a.example", "https://xa.example", false),
            ("https://*.a.example", "https://evil.test/.a.example", false),
            ("https://*.a.example", "https://evil.test:1.a.example", false),
            ("https://*.a.example", "https://x.a.example:1", false),
            ("https://*.a.example:1", "https://x.a.example:1", true),
            ("*", "https://anything", true), ("null", "null", true), ("https://a.example", "null", false),
        ] as [(String, String, Bool)])
    func origins(pattern: String, origin: String, expected: Bool) throws {
        let bytes = Array(origin.utf8)
        #expect(try OriginPattern(pattern).matches(bytes.span) == expected)
    }

    @Test(
        "what is no origin is refused",
        arguments: [
            "a.example", "https://", "https://*", "https://A.example", "https://a.example/", "https://a.*.example",
            "https://a.example:443", "http://a.example:80", "https://a.example:0x1", "ftp://a.example", "https://*.",
        ])
    func noOrigin(text: String) { #expect(throws: TransformError.self) { try OriginPattern(text) } }

    @Test(
        "gzip is wanted as the weights say",
        arguments: [
            (["gzip"], true), (["deflate, gzip;q=1.0, *;q=0.5"], true), (["GZip"], true), (["x-gzip"], true),
            ([], false),
            ([""], false), (["br"], false), (["gzip;q=0"], false), (["gzip; q=0.001"], true), (["*"], true),
            (["*;q=0"], false),
            (["gzip;q=0, *"], false), (["identity;q=1, gzip;q=0.5"], false), (["identity;q=0.5, gzip"], true),
            (["br", "gzip"], true), (["gzip;q=2"], false), (["gzip;q=x"], false), (["gzip;q=0.0001"], false),
            (["gzipx"], false), (["gzip;level=3"], false),
        ] as [([String], Bool)])
    func codings(lines: [String], expected: Bool) {
        var accepted = AcceptEncoding()
        for line in lines {
            let bytes = Array(line.utf8)
            accepted.read(bytes.span)
        }
        #expect(accepted.wantsGzip == expected)
    }

    @Test(
        "media types, whatever their parameters",
        arguments: [
            ("text/html", true), ("Text/HTML; charset=utf-8", true), ("text/htmlx", false),
            ("application/json;x", true),
            ("application/jsonp", false), ("image/png", false), ("image/svg+xml", true), ("text/", false), ("", false),
            ("video/mp4", true), ("video/", false),
        ])
    func mediaTypes(value: String, expected: Bool) {
        let types = MediaTypes(["text/html", "application/JSON", "image/svg+xml", "video/*"])
        let bytes = Array(value.utf8)
        #expect(types.contains(bytes.span) == expected)
    }
}
