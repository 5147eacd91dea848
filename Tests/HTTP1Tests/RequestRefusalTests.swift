import HTTP1
import Testing

/// Every rule, with the offset at which it is found broken marked by `‸`.
@Suite("A request is refused")
struct RequestRefusalTests {
    struct Row: Sendable, CustomTestStringConvertible {
        let rule: Rule
        let input: Marked
        var testDescription: String { "\(rule): \(input)" }

        init(_ rule: Rule, _ input: String) {
            self.rule = rule
            self.input = Marked(input)
        }
    }

    private static func expectRefused(_ row: Row) {
        let outcome = parse(row.input.bytes, as: RequestHead.self).1
        #expect(outcome == .malformed(Violation(row.rule, at: row.input.offset)))
        expectSameHoweverCut(row.input.bytes, as: RequestHead.self)
    }

    @Test(
        "for its request line",
        arguments: [
            Row(.invalidMethod, "‸\u{16}\u{3}\u{1}\u{2}\u{0}"),
            Row(.invalidMethod, "‸ GET / HTTP/1.1\r\n"),
            Row(.invalidMethod, "GE‸\u{0}T / HTTP/1.1\r\n"),
            Row(.invalidMethod, "G‸(T / HTTP/1.1\r\n"),
            Row(.invalidMethod, "GET‸\t/ HTTP/1.1\r\n"),
            Row(.invalidMethod, "GET‸\r\n\r\n"),
            Row(.bareLineFeed, "GET‸\n"),
            Row(.bareLineFeed, "‸\nGET / HTTP/1.1\r\n"),
            Row(.bareCarriageReturn, "‸\rGET / HTTP/1.1\r\n"),
            Row(.emptyLines, "\r\n‸\r\nGET / HTTP/1.1\r\n"),
            Row(.bareLineFeed, "\r\n‸\nGET / HTTP/1.1\r\n"),
            Row(.methodTooLong, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH‸I / HTTP/1.1\r\n"),
            Row(.connectMethod, "‸CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            Row(.malformedRequestLine, "GET ‸ / HTTP/1.1\r\n"),
            Row(.malformedRequestLine, "GET ‸ HTTP/1.1\r\n"),
            Row(.malformedRequestLine, "GET /‸\r\n"),
            Row(.bareLineFeed, "GET /‸\n"),
            Row(.malformedRequestLine, "GET / ‸ HTTP/1.1\r\n"),
            Row(.malformedRequestLine, "GET /a ‸b HTTP/1.1\r\n"),
            Row(.malformedRequestLine, "GET / ‸\r\n"),
            Row(.malformedRequestLine, "GET / ‸http/1.1\r\n"),
            Row(.malformedRequestLine, "GET / HTTP/‸x.1\r\n"),
            Row(.malformedRequestLine, "GET / HTTP/1‸1\r\n"),
            Row(.malformedRequestLine, "GET / HTTP/1.‸\r\n"),
            Row(.malformedRequestLine, "GET / HTTP/1.1‸1\r\n"),
            Row(.malformedRequestLine, "GET / HTTP/1.1‸ \r\n"),
            Row(.bareLineFeed, "GET / HTTP/1.1‸\nHost: h\n\n"),
            Row(.bareCarriageReturn, "GET / HTTP/1.1‸\rHost: h\r\n\r\n"),
            Row(.unsupportedVersion, "GET / ‸HTTP/0.9\r\n"),
            Row(.unsupportedVersion, "GET / ‸HTTP/1.2\r\n"),
            Row(.unsupportedVersion, "GET / ‸HTTP/2.0\r\n"),
            Row(.unsupportedVersion, "PRI * ‸HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ])
    func requestLine(_ row: Row) { Self.expectRefused(row) }

    @Test(
        "for its target",
        arguments: [
            Row(.invalidTarget, "GET /a‸\tb HTTP/1.1\r\n"),
            Row(.invalidTarget, "GET /‸\u{0} HTTP/1.1\r\n"),
            Row(.invalidTarget, "GET /‸\u{7f} HTTP/1.1\r\n"),
            Row(.invalidTarget, "GET /‸\u{e9} HTTP/1.1\r\n"),
            Row(.invalidTarget, "GET /a‸#b HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸a.example:80 HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸a HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸?a HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸ftp://a/ HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸http:/a HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸http: HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸http HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸httpss://a/ HTTP/1.1\r\n"),
            Row(.targetForm, "GET ‸httphttp://a/ HTTP/1.1\r\n"),
            Row(.targetForm, "OPTIONS ‸** HTTP/1.1\r\n"),
            Row(.asteriskForm, "GET ‸* HTTP/1.1\r\n"),
            Row(.malformedHost, "GET http://‸/ HTTP/1.1\r\n"),
            Row(.malformedHost, "GET http://‸?q HTTP/1.1\r\n"),
            Row(.malformedHost, "GET http://‸a@b/ HTTP/1.1\r\n"),
        ])
    func target(_ row: Row) { Self.expectRefused(row) }

    @Test(
        "for a field line",
        arguments: [
            Row(.bareLineFeed, "GET / HTTP/1.1\r\nHost: h‸\n\r\n"),
            Row(.bareLineFeed, "GET / HTTP/1.1\r\nHost: h\r\nA‸\nB: c\r\n\r\n"),
            Row(.bareLineFeed, "GET / HTTP/1.1\r\nHost: h\r\n‸\n"),
            Row(.bareLineFeed, "GET / HTTP/1.1\r\nHost: h\r\nA: ‸\n\r\n"),
            Row(.bareCarriageReturn, "GET / HTTP/1.1\r\nA: b‸\rC: d\r\n\r\n"),
            Row(.bareCarriageReturn, "GET / HTTP/1.1\r\nA: b‸\r\r\n\r\n"),
            Row(.bareCarriageReturn, "GET / HTTP/1.1\r\nHost: h\r\n‸\rX: y\r\n\r\n"),
            Row(.foldedLine, "GET / HTTP/1.1\r\n‸ Host: h\r\n\r\n"),
            Row(.foldedLine, "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n‸ c\r\n\r\n"),
            Row(.foldedLine, "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n‸\tc\r\n\r\n"),
            Row(.foldedLine, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n‸ chunked\r\n\r\n"),
            Row(.foldedLine, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \r\n‸\tchunked\r\n\r\n"),
            Row(.foldedLine, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n‸ 5\r\n\r\n"),
            Row(.foldedLine, "GET / HTTP/1.1\r\nHost:\r\n‸ h\r\n\r\n"),
            Row(.foldedLine, "GET / HTTP/1.1\r\nHost: h\r\nExpect:\r\n‸ 100-continue\r\n\r\n"),
            Row(.emptyFieldName, "GET / HTTP/1.1\r\n‸: b\r\n\r\n"),
            Row(.invalidFieldName, "GET / HTTP/1.1\r\nA‸(: b\r\n\r\n"),
            Row(.invalidFieldName, "GET / HTTP/1.1\r\nA‸\u{0}: b\r\n\r\n"),
            Row(.invalidFieldName, "GET / HTTP/1.1\r\n‸\u{e9}: b\r\n\r\n"),
            Row(.invalidFieldName, "GET / HTTP/1.1\r\n‸\"A\": b\r\n\r\n"),
            Row(.whitespaceBeforeColon, "POST / HTTP/1.1\r\nTransfer-Encoding‸ : chunked\r\n\r\n"),
            Row(.whitespaceBeforeColon, "POST / HTTP/1.1\r\nTransfer-Encoding‸\t: chunked\r\n\r\n"),
            Row(.whitespaceBeforeColon, "GET / HTTP/1.1\r\nA‸ B: c\r\n\r\n"),
            Row(.missingColon, "GET / HTTP/1.1\r\nHost‸\r\n\r\n"),
            Row(.invalidFieldValue, "GET / HTTP/1.1\r\nA: b‸\u{0}c\r\n\r\n"),
            Row(.invalidFieldValue, "GET / HTTP/1.1\r\nA: ‸\u{b}chunked\r\n\r\n"),
            Row(.invalidFieldValue, "GET / HTTP/1.1\r\nA: b‸\u{7f}\r\n\r\n"),
            Row(.invalidFieldValue, "GET / HTTP/1.1\r\nA: b‸\u{1b}[2J\r\n\r\n"),
        ])
    func fieldLine(_ row: Row) { Self.expectRefused(row) }

    @Test(
        "for its host",
        arguments: [
            Row(.missingHost, "‸GET / HTTP/1.1\r\n\r\n"),
            Row(.missingHost, "‸GET http://a/ HTTP/1.1\r\nX: y\r\n\r\n"),
            Row(.repeatedHost, "GET / HTTP/1.1\r\nHost: a\r\nhost: ‸a\r\n\r\n"),
            Row(.repeatedHost, "GET / HTTP/1.0\r\nHost: a\r\nHost: ‸b\r\n\r\n"),
            Row(.malformedHost, "GET / HTTP/1.0\r\nHost: ‸a b\r\n\r\n"),
        ])
    func host(_ row: Row) { Self.expectRefused(row) }

    @Test(
        "for its Content-Length",
        arguments: [
            "", "+5", "-1", "5 5", "5,5", "5, 5", "0x5", "5.0", "1e3", "five", "5\u{e9}", "9223372036854775808",
            "18446744073709551617", "00000000000000000005",
        ])
    func contentLength(_ value: String) {
        Self.expectRefused(
            Row(.malformedContentLength, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ‸\(value)\r\n\r\n"))
    }

    @Test(
        "for its framing",
        arguments: [
            Row(.repeatedContentLength, "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: ‸5\r\n\r\n"),
            Row(.repeatedContentLength, "POST / HTTP/1.1\r\nContent-Length: 5\r\nCONTENT-LENGTH: ‸6\r\n\r\n"),
            Row(
                .transferEncodingWithContentLength,
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n‸Transfer-Encoding: chunked\r\n\r\n"),
            Row(
                .transferEncodingWithContentLength,
                "POST / HTTP/1.1\r\nHost: h\r\n‸Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
            Row(
                .transferEncodingInHTTP10,
                "POST / HTTP/1.0\r\nHost: h\r\n‸Transfer-Encoding: chunked\r\n\r\n"),
        ])
    func framing(_ row: Row) { Self.expectRefused(row) }

    @Test(
        "for its Transfer-Encoding",
        arguments: [
            ("gzip", .chunkedNotFinal), ("identity", .chunkedNotFinal), ("xchunked", .chunkedNotFinal),
            ("chunkedx", .chunkedNotFinal), ("chunked, gzip", .chunkedNotFinal), ("chunked, chunked", .chunkedNotFinal),
            ("chunked, identity", .chunkedNotFinal), ("gzip, chunked", .unknownTransferCoding),
            ("gzip,deflate , chunked", .unknownTransferCoding),
            ("chunked\r\nTransfer-Encoding: chunked", .chunkedNotFinal),
            ("chunked\r\nTransfer-Encoding: gzip", .chunkedNotFinal),
            ("gzip\r\nTransfer-Encoding: chunked", .unknownTransferCoding),
        ] as [(String, Rule)])
    func transferEncoding(_ value: String, _ rule: Rule) {
        Self.expectRefused(Row(rule, "POST / HTTP/1.1\r\nHost: h\r\n‸Transfer-Encoding: \(value)\r\n\r\n"))
    }

    @Test(
        "for a malformed Transfer-Encoding",
        arguments: [
            "", ",chunked", "chunked,", "gzip,,chunked", "chunked;q=1", "chu nked", "\"chunked\"", "chunked\u{e9}",
        ])
    func malformedTransferEncoding(_ value: String) {
        Self.expectRefused(
            Row(.malformedTransferEncoding, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ‸\(value)\r\n\r\n"))
    }

    @Test(
        "for an expectation that nobody knows",
        arguments: ["", "200-ok", "100-continue, x", "100-continue;q=1", "100-continu"])
    func expectation(_ value: String) {
        Self.expectRefused(Row(.unknownExpectation, "PUT / HTTP/1.1\r\nHost: h\r\nExpect: ‸\(value)\r\n\r\n"))
    }

    @Test(
        "for what its method does not allow",
        arguments: [
            Row(.lengthRequired, "‸POST / HTTP/1.0\r\n\r\n"),
            Row(.lengthRequired, "‸PUT / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            Row(.lengthRequired, "\r\n‸PATCH / HTTP/1.0\r\n\r\n"),
            Row(.traceWithBody, "‸TRACE / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"),
            Row(.traceWithBody, "‸TRACE / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ])
    func method(_ row: Row) { Self.expectRefused(row) }

    @Test("for options of Connection that are no tokens, or too many")
    func connection() {
        Self.expectRefused(Row(.malformedConnection, "GET / HTTP/1.1\r\nConnection: ‸a b\r\n\r\n"))
        Self.expectRefused(Row(.malformedConnection, "GET / HTTP/1.1\r\nConnection: ‸close;x\r\n\r\n"))
        let many = Array(repeating: "a", count: 17).joined(separator: ",")
        Self.expectRefused(
            Row(.malformedConnection, "GET / HTTP/1.1\r\nConnection: \(many)\r\nConnection: ‸\(many)\r\n\r\n"))
    }
}
