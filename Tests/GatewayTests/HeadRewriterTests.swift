import Configuration
import HTTP1
import Identity
import LinuxIO
import Primitives
import Testing

@testable import Gateway

@Suite("Heads are rewritten byte for byte")
struct HeadRewriterTests {
    struct Row: Sendable, CustomStringConvertible {
        var description: String
        var head: String
        var stripped = 0
        var peer = "192.0.2.7"
        var trusted = false
        var believed = Configuration.ForwardedHeader.xForwardedFor
        /// Whom the walk found; the peer where there is none.
        var client: String?
        var https = false
        var replacesHost = false
        var hopsLeft: Int?
        /// What a backend gets, without the tail that names it.
        var written: String
    }

    static let rows = [
        Row(
            description: "a plain request", head: "GET /a HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\n\r\n",
            written: "GET /a HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "the prefix goes, the query stays", head: "GET /api/x?y=/api HTTP/1.1\r\nHost: h\r\n\r\n",
            stripped: 4,
            written: "GET /x?y=/api HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "an empty rest becomes a slash", head: "GET /api?y HTTP/1.1\r\nHost: h\r\n\r\n", stripped: 4,
            written: "GET /?y HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "hop-by-hop fields go, between lines that stay",
            head:
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: b, close\r\nA: 1\r\nB: 2\r\nC: 3\r\nTE: trailers\r\nD: 4\r\n\r\n",
            written: "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nC: 3\r\nD: 4\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "claims of an untrusted peer go",
            head: "GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nHost: h\r\nForwarded: for=x\r\nx-real-ip: 1.2.3.4\r\n"
                + "X-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\nX-Forwarded-Port: 1\r\nX-Origin-Host: e\r\n"
                + "X-Forwarded-Prefix: /e\r\nX-Forwarded-Server: e\r\nX-Forwarded-Scheme: e\r\nX-Forwarded-Ssl: on\r\n"
                + "X-Client-IP: 1.2.3.4\r\nTrue-Client-IP: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n",
            written: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "a trusted peer's list is continued, the rest stands",
            head: "GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nHost: h\r\nX-Forwarded-For: 5.6.7.8, ::1\r\n"
                + "X-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\n\r\n",
            trusted: true,
            written: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: e\r\n"
                + "X-Forwarded-For: 1.2.3.4, 5.6.7.8, ::1, 192.0.2.7\r\nVia: 1.1 us\r\n"),
        Row(
            description: "a trusted peer that continues X-Forwarded-For vouches for no other address",
            head:
                "GET / HTTP/1.1\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\nHost: h\r\nX-Real-IP: 6.6.6.6\r\n"
                + "X-Client-IP: 6.6.6.6\r\nTrue-Client-IP: 6.6.6.6\r\n\r\n",
            trusted: true, client: "1.2.3.4",
            written: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4, 192.0.2.7\r\nX-Real-IP: 1.2.3.4\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "where Forwarded is believed it is continued, and the X- fields say what it says",
            head: "GET / HTTP/1.1\r\nForwarded: for=1.2.3.4;proto=https\r\nX-Forwarded-For: 6.6.6.6\r\nHost: h:81\r\n"
                + "X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: e\r\nForwarded: for=5.6.7.8\r\n\r\n",
            trusted: true, believed: .forwarded, client: "1.2.3.4", https: true,
            written: "GET / HTTP/1.1\r\nHost: h:81\r\nX-Forwarded-For: 1.2.3.4, 192.0.2.7\r\n"
                + "Forwarded: for=1.2.3.4;proto=https, for=5.6.7.8, for=192.0.2.7;host=\"h:81\";proto=http\r\n"
                + "X-Forwarded-Host: h:81\r\nX-Forwarded-Proto: https\r\nVia: 1.1 us\r\n"),
        Row(
            description: "a malformed Forwarded is replaced by what the walk made of it",
            head: "GET / HTTP/1.1\r\nForwarded: for=\"\r\nHost: h\r\nForwarded: for=5.6.7.8\r\n\r\n",
            trusted: true, believed: .forwarded, client: "5.6.7.8", https: true,
            written: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 5.6.7.8, 192.0.2.7\r\n"
                + "Forwarded: for=5.6.7.8;proto=https, for=192.0.2.7;host=\"h\";proto=http\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: https\r\nVia: 1.1 us\r\n"),
        Row(
            description: "also where it leads to nobody",
            head: "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=\"[2001:db8::1]\r\n\r\n",
            trusted: true, believed: .forwarded,
            written: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "Forwarded: for=192.0.2.7;host=\"h\";proto=http\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "an untrusted peer's Forwarded is replaced",
            head: "GET / HTTP/1.0\r\nForwarded: for=6.6.6.6;proto=https\r\n\r\n", peer: "2001:db8::7",
            believed: .forwarded,
            written: "GET / HTTP/1.1\r\nX-Forwarded-For: 2001:db8::7\r\n"
                + "Forwarded: for=\"[2001:db8::7]\";proto=http\r\nX-Forwarded-Proto: http\r\nVia: 1.0 us\r\n"),
        Row(
            description: "an IPv6 peer", head: "GET / HTTP/1.1\r\nHost: h\r\n\r\n", peer: "2001:db8::7",
            written: "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 2001:db8::7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "the backend's Host replaces the client's, which is still told",
            head: "GET / HTTP/1.1\r\nA: 1\r\nHost: h:8080\r\nB: 2\r\n\r\n", replacesHost: true,
            written: "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h:8080\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "an absolute target's authority is the host",
            head: "GET http://t:1/api/x HTTP/1.1\r\nHost: h\r\n\r\n", stripped: 4,
            written: "GET /x HTTP/1.1\r\nHost: t:1\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: t:1\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "an HTTP/1.0 request without Host",
            head: "GET / HTTP/1.0\r\nExpect: 100-continue\r\nA: 1\r\n\r\n",
            written: "GET / HTTP/1.1\r\nA: 1\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Proto: http\r\nVia: 1.0 us\r\n"),
        Row(
            description: "a chunked body is announced anew, a length as it came",
            head: "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nHost: h\r\n\r\n",
            written: "POST / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\nTransfer-Encoding: chunked\r\n"),
        Row(
            description: "a length stays as it came", head: "POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 7\r\n\r\n",
            written: "POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 7\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "but not with leading zeros",
            head: "POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 010\r\n\r\n",
            written: "POST / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\nContent-Length: 10\r\n"),
        Row(
            description: "a TRACE takes no credentials along",
            head: "TRACE / HTTP/1.1\r\nCookie: a\r\nHost: h\r\nAuthorization: b\r\nX-API-Key: c\r\nA: 1\r\n\r\n",
            written: "TRACE / HTTP/1.1\r\nHost: h\r\nA: 1\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\n"),
        Row(
            description: "fewer hops are left", head: "OPTIONS / HTTP/1.1\r\nMax-Forwards: 9\r\nHost: h\r\n\r\n",
            hopsLeft: 8,
            written: "OPTIONS / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n"
                + "X-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\nVia: 1.1 us\r\nMax-Forwards: 8\r\n"),
    ]

    @Test("a request", arguments: rows)
    func request(row: Row) throws {
        let bytes = Array(row.head.utf8)
        var head = RequestHead()
        try #require(head.parse(bytes.span, limits: HeadLimits()) == .complete(length: bytes.count))
        let peer = try #require(IPAddress(row.peer))
        let identity = ClientIdentity(
            peer: peer, peerTrusted: row.trusted, client: row.client.flatMap { IPAddress($0) } ?? peer,
            scheme: row.https ? .https : nil)
        let rewrite = RequestRewrite(
            stripped: row.stripped, identity: identity, believed: row.believed, replacesHost: row.replacesHost,
            hopsLeft: row.hopsLeft)
        var output = ByteBuffer()
        rewrite.write(head, bytes.span, via: Array("us".utf8), to: &output)
        #expect(text(output) == row.written)
    }

    struct Answer: Sendable, CustomStringConvertible {
        var description: String
        var head: String
        var delivery = ResponseDelivery.asAnnounced
        var keepAlive = true
        var client = HTTPVersion.http11
        var date = ""
        var written: String
    }

    static let answers = [
        Answer(
            description: "a plain answer", head: "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nA: 1\r\n\r\n",
            written: "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nA: 1\r\nVia: 1.1 us\r\n\r\n"),
        Answer(
            description: "an answer of HTTP/1.0 to be sent in chunks", head: "HTTP/1.0 200 OK\r\nA: 1\r\n\r\n",
            delivery: .chunked,
            written: "HTTP/1.1 200 OK\r\nA: 1\r\nVia: 1.0 us\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Answer(
            description: "hop-by-hop fields go",
            head: "HTTP/1.1 200 OK\r\nConnection: x\r\nX: 1\r\nKeep-Alive: 5\r\nA: 1\r\n\r\n",
            keepAlive: false, written: "HTTP/1.1 200 OK\r\nA: 1\r\nVia: 1.1 us\r\nConnection: close\r\n\r\n"),
        Answer(
            description: "to an HTTP/1.0 client that stays", head: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            client: .http10,
            written: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 us\r\nConnection: keep-alive\r\n\r\n"),
        Answer(
            description: "an interim answer has no framing",
            head: "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nLink: a\r\n\r\n",
            written: "HTTP/1.1 103 Early Hints\r\nLink: a\r\nVia: 1.1 us\r\n\r\n"),
        Answer(
            description: "204 has no length", head: "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            written: "HTTP/1.1 204 No Content\r\nVia: 1.1 us\r\n\r\n"),
        Answer(
            description: "304 keeps the length of what it stands for",
            head: "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            written: "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nVia: 1.1 us\r\n\r\n"),
        Answer(
            description: "a length with leading zeros", head: "HTTP/1.1 200 OK\r\nContent-Length: 08\r\nA: 1\r\n\r\n",
            written: "HTTP/1.1 200 OK\r\nA: 1\r\nVia: 1.1 us\r\nContent-Length: 8\r\n\r\n"),
        Answer(
            description: "a date where there is none", head: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            date: "Date: now\r\n",
            written: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 us\r\nDate: now\r\n\r\n"),
        Answer(
            description: "the backend's date where there is one",
            head: "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n", date: "Date: now\r\n",
            written: "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\nVia: 1.1 us\r\n\r\n"),
        Answer(
            description: "no date for what is not final", head: "HTTP/1.1 100 Continue\r\n\r\n", date: "Date: now\r\n",
            written: "HTTP/1.1 100 Continue\r\nVia: 1.1 us\r\n\r\n"),
        Answer(
            description: "an empty reason", head: "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
            written: "HTTP/1.1 299 \r\nContent-Length: 0\r\nVia: 1.1 us\r\n\r\n"),
    ]

    @Test("an answer", arguments: answers)
    func answer(row: Answer) throws {
        let bytes = Array(row.head.utf8)
        var head = ResponseHead()
        try #require(head.parse(bytes.span, limits: HeadLimits()) == .complete(length: bytes.count))
        let rewrite = ResponseRewrite(delivery: row.delivery, keepAlive: row.keepAlive, clientVersion: row.client)
        var output = ByteBuffer()
        rewrite.write(head, bytes.span, via: Array("us".utf8), date: Array(row.date.utf8), to: &output)
        #expect(text(output) == row.written)
    }

    private func text(_ buffer: borrowing ByteBuffer) -> String {
        let bytes = buffer.bytes
        var copy: [UInt8] = []
        for i in bytes.indices { copy.append(bytes[i]) }
        return String(decoding: copy, as: UTF8.self)
    }
}
