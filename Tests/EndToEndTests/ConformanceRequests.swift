// The conformance table: what clients send.

extension ConformanceTests {
    private static let chunked = "POST /t HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    private static let chunkedHead =
        "POST / HTTP/1.1\r\nHost: h\r\n{added}Transfer-Encoding: chunked\r\n{end}"
    private static func get(_ fields: String) -> String { "GET /t HTTP/1.1\r\n\(fields)\r\n" }
    private static func post(_ fields: String, _ body: String = "") -> String {
        "POST /t HTTP/1.1\r\nHost: h\r\n\(fields)\r\n\(body)"
    }
    private static func passed(_ fields: String = "Host: h\r\n") -> String { "GET / HTTP/1.1\r\n\(fields){added}{end}" }

    static var requests: [Conformance] {
        requestLines + targets + fieldLines + framings + chunks + methods + connections
    }

    private static let requestLines: [Conformance] = [
        .init("RFC 9112 §3", "GET /t HTTP/1.1\r\nHost: h\r\n\r\n", forwarded: passed()),
        .init("RFC 9112 §2.2: one empty line before", "\r\nGET /t HTTP/1.1\r\nHost: h\r\n\r\n", forwarded: passed()),
        .init("RFC 9112 §2.2: two", "\r\n\r\nGET /t HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "empty-lines"),
        .init("RFC 9112 §2.2: bare LF", "GET /t HTTP/1.1\nHost: h\n\n", refused: 400, "bare-line-feed"),
        .init("RFC 9112 §2.2: bare CR", "GET /t HTTP/1.1\rHost: h\r\n\r\n", refused: 400, "bare-carriage-return"),
        .init("RFC 9112 §3: two spaces", "GET  /t HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "malformed-request-line"),
        .init("RFC 9112 §3: a tab", "GET\t/t HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "invalid-method"),
        .init("RFC 9112 §3: leading space", " GET /t HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "invalid-method"),
        .init("RFC 9112 §3: HTTP/0.9", "GET /t\r\n\r\n", refused: 400, "malformed-request-line"),
        .init(
            "RFC 9112 §2.3: lower case", "GET /t http/1.1\r\nHost: h\r\n\r\n", refused: 400, "malformed-request-line"),
        .init("RFC 9110 §15.6.6", "GET /t HTTP/2.0\r\nHost: h\r\n\r\n", refused: 505, "unsupported-version"),
        .init("RFC 9113 §3.4: a preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused: 505, "unsupported-version"),
        .init(
            "a TLS hello", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}", refused: 400, "invalid-method"),
        .init("RFC 9110 §9.1: NUL", "GE\u{0}T /t HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "invalid-method"),
        .init(
            "RFC 9112 §3: a long target", "GET /t\(String(repeating: "a", count: 8_200)) HTTP/1.1\r\nHost: h\r\n\r\n",
            refused: 414, "start-line-too-long"),
        .init(
            "RFC 9112 §3: a long method", "\(String(repeating: "M", count: 35)) /t HTTP/1.1\r\nHost: h\r\n\r\n",
            refused: 501, "method-too-long"),
    ]

    private static let targets: [Conformance] =
        [
            .init(
                "RFC 9112 §3.2.2: absolute-form decides Host", "GET http://h/t/x?y HTTP/1.1\r\nHost: evil\r\n\r\n",
                forwarded: "GET /x?y HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "RFC 9112 §3.2.2: and needs one", "GET http://h/t HTTP/1.1\r\n\r\n", refused: 400, "missing-host"),
            .init(
                "RFC 9110 §7.4: https without TLS", "GET https://h/t HTTP/1.1\r\nHost: h\r\n\r\n", declined: 421,
                "misdirected"),
            .init(
                "RFC 9110 §4.2.4: user information", "GET http://a@h/t HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400,
                "malformed-host"),
            .init(
                "RFC 9112 §3.2: other schemes", "GET ftp://h/t HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "target-form"
            ),
            .init(
                "RFC 9112 §3.2.3: authority-form", "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "target-form"),
            .init(
                "RFC 9110 §9.3.6: CONNECT", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", refused: 501,
                "connect-method"),
            .init("RFC 9112 §3.2.4: *", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "asterisk-form"),
            .init("RFC 9112 §3.2: a fragment", "GET /t#a HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "invalid-target"),
            .init(
                "RFC 9112 §3.2: a high byte", "GET /t/\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400,
                "invalid-target"),
            .init(
                "RFC 9112 §3.2: a control", "GET /t/\u{1} HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400, "invalid-target"),
            .init(
                "RFC 9112 §3.2: a space", "GET /t/a b HTTP/1.1\r\nHost: h\r\n\r\n", refused: 400,
                "malformed-request-line"),
            .init("no service", "GET /none HTTP/1.1\r\nHost: h\r\n\r\n", declined: 404, "service-not-found"),
            .init(
                "an encoded slash stays", "GET /t/a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "GET /a%2Fb HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "RFC 3986 §6.2.2.2: routed as decoded, forwarded as written",
                "GET /api/%75sers/%7e HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "GET /%7e HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "slashes in a row are one to the route, and what is behind the prefix begins with one",
                "GET //t///a//b HTTP/1.1\r\nHost: h\r\n\r\n", forwarded: "GET /a//b HTTP/1.1\r\nHost: h\r\n{added}{end}"
            ),
            .init(
                "no path becomes a host", "GET /t//evil.test/ HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "GET /evil.test/ HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "parameters are no part of a route's segment", "GET /t;x=1/a;y HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "GET /a;y HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "a prefix is not left by parameters", "GET /api;/users;a/..;/x HTTP/1.1\r\nHost: h\r\n\r\n",
                declined: 400, "path-escapes"),
            .init(
                "dots in the query are no path", "GET /t?/../x HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "GET /?/../x HTTP/1.1\r\nHost: h\r\n{added}{end}"),
        ]
        + [
            "/../t", "/.", "/./a", "/%2e%2e/t", "/.%2E/t", "/a/%2e", "/..%2fa", "/a%2f../../t", "/a%2Fb/../../../t",
            "/..\\t", "/a\\b", "/a%5Cb", "/..;/t", "/..;a=b/t", "/..%3b/t", "/a%00", "/a%", "/a%g0", "/a%u002e",
        ].map {
            .init("RFC 3986 §5.2.4: \($0)", "GET /t\($0) HTTP/1.1\r\nHost: h\r\n\r\n", declined: 400, "path-escapes")
        }

    private static let fieldLines: [Conformance] = [
        .init("RFC 9112 §3.2: no Host", get(""), refused: 400, "missing-host"),
        .init("RFC 9112 §3.2: two", get("Host: h\r\nHost: h\r\n"), refused: 400, "repeated-host"),
        .init("RFC 9110 §7.2: a list", get("Host: h, g\r\n"), refused: 400, "malformed-host"),
        .init("RFC 9110 §7.2: a path", get("Host: h/x\r\n"), refused: 400, "malformed-host"),
        .init("RFC 9110 §7.2: a port that is none", get("Host: h:a\r\n"), refused: 400, "malformed-host"),
        .init("RFC 9110 §4.2.1: empty", get("Host:\r\n"), refused: 400, "malformed-host"),
        .init("RFC 9112 §5.1: before the colon", get("Host : h\r\n"), refused: 400, "whitespace-before-colon"),
        .init("RFC 9112 §5.1: no name", get("Host: h\r\n: a\r\n"), refused: 400, "empty-field-name"),
        .init("RFC 9112 §5: no colon", get("Host: h\r\nabc\r\n"), refused: 400, "missing-colon"),
        .init("RFC 9112 §5.2: obs-fold", get("Host: h\r\nA: b\r\n c\r\n"), refused: 400, "folded-line"),
        .init(
            "RFC 9112 §5.2: obs-fold behind an empty value",
            post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), refused: 400, "folded-line"),
        .init("RFC 9112 §2.2: folded first", get(" A: b\r\nHost: h\r\n"), refused: 400, "folded-line"),
        .init("RFC 9110 §5.1: a bad name", get("Host: h\r\nA(: b\r\n"), refused: 400, "invalid-field-name"),
        .init("RFC 9110 §5.5: NUL", get("Host: h\r\nA: b\u{0}c\r\n"), refused: 400, "invalid-field-value"),
        .init("RFC 9110 §5.5: a control", get("Host: h\r\nA: \u{8}\r\n"), refused: 400, "invalid-field-value"),
        .init("RFC 9110 §5.5: DEL", get("Host: h\r\nA: \u{7f}\r\n"), refused: 400, "invalid-field-value"),
        .init("RFC 9112 §2.2: bare CR", get("Host: h\r\nA: b\rC: d\r\n"), refused: 400, "bare-carriage-return"),
        .init("RFC 9112 §2.2: bare LF", get("Host: h\r\nA: b\nC: d\r\n"), refused: 400, "bare-line-feed"),
        .init(
            "RFC 9110 §5.5: high bytes and tabs pass", get("Host: h\r\nA: \u{e9}\tb \u{ff}\r\n"),
            forwarded: passed("Host: h\r\nA: \u{e9}\tb \u{ff}\r\n")),
        .init(
            "RFC 6585 §5: size", get("Host: h\r\nA: \(String(repeating: "a", count: 32_800))\r\n"), refused: 431,
            "header-bytes"),
        .init(
            "RFC 6585 §5: number", get("Host: h\r\n\(String(repeating: "A: b\r\n", count: 100))"), refused: 431,
            "header-count"),
        .init("RFC 9110 §10.1.1", get("Host: h\r\nExpect: 200-ok\r\n"), refused: 417, "unknown-expectation"),
        .init(
            "RFC 9110 §10.1.1: a list", get("Host: h\r\nExpect: 100-continue, x\r\n"), refused: 417,
            "unknown-expectation"),
    ]

    private static let framings: [Conformance] =
        [
            .init(
                "RFC 9112 §6.3: a length", post("Content-Length: 3\r\n", "abc"),
                forwarded: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n{added}{end}abc"),
            .init(
                "RFC 9112 §6.3: none is no body", post(""), forwarded: "POST / HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "RFC 9110 §8.6: leading zeros", post("Content-Length: 010\r\n", "0123456789"),
                forwarded: "POST / HTTP/1.1\r\nHost: h\r\n{added}Content-Length: 10\r\n{end}0123456789"),
            .init(
                "RFC 9112 §6.3: both", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
                refused: 400,
                "transfer-encoding-with-content-length"),
            .init(
                "RFC 9112 §6.3: both, turned", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"),
                refused: 400, "transfer-encoding-with-content-length"),
            .init(
                "RFC 9112 §6.1: in HTTP/1.0",
                "POST /t HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                refused: 400, "transfer-encoding-in-http10"),
            .init(
                "RFC 9112 §6.3: two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), refused: 400,
                "repeated-content-length"),
            .init(
                "RFC 9112 §6.3: twice the same", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
                refused: 400,
                "repeated-content-length"),
            .init(
                "RFC 1945 §8.3: no length in HTTP/1.0", "POST /t HTTP/1.0\r\nHost: h\r\n\r\nabc", refused: 411,
                "length-required"),
            .init(
                "RFC 9110 §15.5.14", "POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n", refused: 413,
                "body-too-large"),
            .init(
                "RFC 9110 §10.1.1: an HTTP/1.0 client expects nothing",
                "PUT /t HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
                forwarded: "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n{added10}{end}x",
                .bytes(okReceived.replacing("sluice\r\n", with: "sluice\r\nConnection: keep-alive\r\n"))),
        ]
        + ["3,3", "3, 3", "+3", "-3", "0x3", "3 3", "3.0", "", "99999999999999999999", "9223372036854775808"].map {
            .init(
                "RFC 9110 §8.6: \($0)", post("Content-Length: \($0)\r\n", "abc"), refused: 400,
                "malformed-content-length")
        }
        + [
            ("gzip", 400, "chunked-not-final"), ("chunked, gzip", 400, "chunked-not-final"),
            ("chunked, chunked", 400, "chunked-not-final"), ("identity", 400, "chunked-not-final"),
            ("xchunked", 400, "chunked-not-final"), ("chunked\r\nTransfer-Encoding: chunked", 400, "chunked-not-final"),
            ("gzip, chunked", 501, "unknown-transfer-coding"), ("identity, chunked", 501, "unknown-transfer-coding"),
            (",chunked", 400, "malformed-transfer-encoding"), ("chunked;a=b", 400, "malformed-transfer-encoding"),
            ("\"chunked\"", 400, "malformed-transfer-encoding"), ("", 400, "malformed-transfer-encoding"),
            ("\u{b}chunked", 400, "invalid-field-value"),
        ].map {
            .init("RFC 9112 §6.1: \($0.0)", post("Transfer-Encoding: \($0.0)\r\n", "0\r\n\r\n"), refused: $0.1, $0.2)
        }

    private static let chunks: [Conformance] =
        [
            .init("RFC 9112 §7.1", chunked + "3\r\nabc\r\n0\r\n\r\n", forwarded: chunkedHead + "3\r\nabc\r\n0\r\n\r\n"),
            .init("RFC 9112 §7.1: none", chunked + "0\r\n\r\n", forwarded: chunkedHead + "0\r\n\r\n"),
            .init(
                "RFC 9112 §7.1: any spelling of the size",
                chunked + "000a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n",
                forwarded: chunkedHead + "a\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
            .init(
                "RFC 9112 §7.1.1: extensions end here", chunked + "1;a=b;c=\"d\"\r\nx\r\n0;e\r\n\r\n",
                forwarded: chunkedHead + "1\r\nx\r\n0\r\n\r\n"),
            .init(
                "RFC 9110 §6.5.1: trailers pass, but not those that came too late",
                chunked
                    + "1\r\nx\r\n0\r\nA:  b \r\nContent-Length: 5\r\nhost: evil\r\nX_Forwarded_For: 1\r\nCookie: c\r\n"
                    + "If-Match: d\r\nContent-Digest: e\r\nTransfer-Encoding: chunked\r\nx-real-ip: 1\r\nEmpty:\r\n\r\n",
                forwarded: chunkedHead + "1\r\nx\r\n0\r\nA:  b \r\nContent-Digest: e\r\nEmpty:\r\n\r\n"),
            .init(
                "RFC 9110 §10.1.4: TE is for the next hop, and named in Connection",
                get("Host: h\r\nConnection: TE\r\nTE: gzip;q=0.5 , Trailers\r\n"),
                forwarded: "GET / HTTP/1.1\r\nHost: h\r\n{added}TE: trailers\r\nConnection: TE\r\n{end}"),
            .init(
                "RFC 9110 §10.1.4: other codings are not asked for", get("Host: h\r\nConnection: TE\r\nTE: gzip\r\n"),
                forwarded: passed()),
            .init(
                "RFC 9112 §6.1: the coding in any case",
                post("Transfer-Encoding: ChunKed\r\n", "1\r\nx\r\n0\r\n\r\n"),
                forwarded: chunkedHead + "1\r\nx\r\n0\r\n\r\n"),
        ]
        + [
            ("-1\r\n", "malformed-chunk-size"), ("+1\r\nx\r\n", "malformed-chunk-size"),
            (" 1\r\nx\r\n", "malformed-chunk-size"), ("0x1\r\nx\r\n", "malformed-chunk-size"),
            ("\r\n", "malformed-chunk-size"), ("g\r\n", "malformed-chunk-size"),
            ("1 \r\nx\r\n", "malformed-chunk-extension"), ("1;\u{0}\r\nx\r\n", "malformed-chunk-extension"),
            ("1\nx\n0\n\n", "bare-line-feed"), ("1;a\nx\r\n", "bare-line-feed"), ("1\rx", "bare-carriage-return"),
            ("10000000000000000\r\n", "chunk-size-too-large"), ("ffffffffffffffff\r\n", "chunk-size-too-large"),
            ("1;\(String(repeating: "a", count: 300))\r\nx\r\n", "chunk-extension-too-long"),
            ("0\r\nA : b\r\n\r\n", "whitespace-before-colon"), ("0\r\nA: b\r\n c\r\n\r\n", "folded-line"),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", "whitespace-before-colon"),
            ("0\r\nA: \u{0}\r\n\r\n", "invalid-field-value"),
        ].map {
            .init("RFC 9112 §7.1: \($0.0.prefix(40))", chunked + $0.0, refused: 400, $0.1, forwarded: chunkedHead)
        }
        + [
            ("1\r\nxy\r\n0\r\n\r\n", "malformed-chunk-end"), ("1\r\nx\n0\r\n\r\n", "malformed-chunk-end"),
        ].map {
            .init("RFC 9112 §7.1: \($0.0)", chunked + $0.0, refused: 400, $0.1, forwarded: chunkedHead + "1\r\nx\r\n")
        }
        + [
            ("0\r\n\(String(repeating: "A: b\r\n", count: 101))\r\n", "header-count"),
            ("0\r\nA: \(String(repeating: "a", count: 33_000))\r\n\r\n", "header-bytes"),
        ].map {
            .init("RFC 9112 §7.1.2: \($0.1)", chunked + $0.0, refused: 431, $0.1, forwarded: chunkedHead)
        }

    private static let methods: [Conformance] =
        [
            .init(
                "RFC 9110 §9.1: any token", "M-SEARCH~! /t HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "M-SEARCH~! / HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "RFC 9110 §9.1: case counts", "get /t HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "get / HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "RFC 9110 §15.5.6", "PUT /narrow HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", declined: 405,
                "method-not-allowed"),
            .init(
                "RFC 9110 §15.5.6: case counts", "get /narrow HTTP/1.1\r\nHost: h\r\n\r\n", declined: 405,
                "method-not-allowed"),
            .init(
                "RFC 9110 §9.3.7: the server as a whole", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", forwarded: nil,
                .own("")),
            .init(
                "RFC 9112 §3.2.4: and its absolute form", "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: nil,
                .own("")),
            .init(
                "RFC 9110 §9.3.7: a resource", "OPTIONS /t HTTP/1.1\r\nHost: h\r\n\r\n",
                forwarded: "OPTIONS / HTTP/1.1\r\nHost: h\r\n{added}{end}"),
            .init(
                "RFC 9110 §7.6.2: one hop less", "OPTIONS /t HTTP/1.1\r\nHost: h\r\nMax-Forwards: 5\r\n\r\n",
                forwarded: "OPTIONS / HTTP/1.1\r\nHost: h\r\n{added}Max-Forwards: 4\r\n{end}"),
            .init(
                "RFC 9110 §7.6.2: to here and no further", "OPTIONS /t HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n",
                forwarded: nil, .own("")),
            .init(
                "RFC 9110 §7.6.2: not for others", "GET /t HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n",
                forwarded: "GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n{added}{end}"),
            .init(
                "RFC 9110 §9.3.8: TRACE takes no secrets along",
                "TRACE /t HTTP/1.1\r\nHost: h\r\nCookie: a\r\nA: b\r\nAuthorization: c\r\nMax-Forwards: 1\r\n\r\n",
                forwarded: "TRACE / HTTP/1.1\r\nHost: h\r\nA: b\r\n{added}Max-Forwards: 0\r\n{end}"),
            .init(
                "RFC 9110 §9.3.8: TRACE ends here and echoes no secrets",
                "TRACE /t/x?y HTTP/1.1\r\nHost: h\r\nCookie: a\r\nVia: 1.1 outer\r\nX-Secret: c\r\nMax-Forwards: 0\r\n\r\n",
                forwarded: nil,
                .own("TRACE /t/x?y HTTP/1.1\r\nHost: h\r\nVia: 1.1 outer\r\nMax-Forwards: 0\r\n\r\n")),
            .init(
                "RFC 9110 §9.3.8: TRACE has no content", "TRACE /t HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
                refused: 400, "trace-with-body"),
        ]
        + ["", "a", "-1", "+1", "1, 1", "1\r\nMax-Forwards: 1"].map {
            .init(
                "RFC 9110 §7.6.2: \($0)", "OPTIONS /t HTTP/1.1\r\nHost: h\r\nMax-Forwards: \($0)\r\n\r\n",
                declined: 400,
                "malformed-max-forwards")
        }

    private static let connections: [Conformance] = [
        .init(
            "RFC 9110 §7.6.1: what Connection names stays here",
            get("Host: h\r\nConnection: a, b\r\nA: 1\r\nB: 2\r\nC: 3\r\n"), forwarded: passed("Host: h\r\nC: 3\r\n")),
        .init(
            "RFC 9110 §7.6.1: but not what others rely on",
            post("Connection: Host, Content-Length, Cookie\r\nContent-Length: 1\r\nCookie: a\r\n", "x"),
            forwarded: "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nCookie: a\r\n{added}{end}x"),
        .init(
            "RFC 9110 §7.6.1: no tokens", get("Host: h\r\nConnection: a b\r\n"), refused: 400, "malformed-connection"),
        .init(
            "RFC 9110 §7.6.1: fields of one hop",
            get(
                "Host: h\r\nKeep-Alive: 1\r\nTE: trailers\r\nTrailer: a\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: a\r\n"
            ), forwarded: passed()),
        .init(
            "an underscore is no hyphen to the backend's CGI", get("Host: h\r\nContent_Length: 3\r\nA_b: c\r\n"),
            forwarded: passed("Host: h\r\nA_b: c\r\n")),
        .init(
            "nor is any other sign",
            get(
                "Host: h\r\nContent.Length: 3\r\nX.Forwarded_For: 1\r\nTransfer~Encoding: chunked\r\nX-Real.IP: 1\r\n"
                    + "A.b: c\r\nXForwardedFor: 2\r\n"),
            forwarded: passed("Host: h\r\nA.b: c\r\nXForwardedFor: 2\r\n")),
        .init(
            "RFC 9112 §9.6: close", get("Host: h\r\nConnection: close\r\n"), forwarded: passed(),
            .lastBytes(okReceived.replacing("sluice\r\n", with: "sluice\r\nConnection: close\r\n"))),
        .init(
            "RFC 9112 §9.3: HTTP/1.0 ends", "GET /t HTTP/1.0\r\nHost: h\r\n\r\n",
            forwarded: "GET / HTTP/1.1\r\nHost: h\r\n{added10}{end}",
            .lastBytes(okReceived.replacing("sluice\r\n", with: "sluice\r\nConnection: close\r\n"))),
        .init(
            "RFC 9112 §9.3.2: pipelined, and the second refused",
            get("Host: h\r\n") + "GET /t HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", forwarded: passed(),
            .bytesThenRefused("{OK}", 400, "whitespace-before-colon")),
    ]
}
