import Primitives
import TestSupport
import Testing

@Suite("What the node answers by itself")
struct RefusalTests {
    /// What breaks a rule, and the status that it gets.
    static let malformed: [(String, Int)] = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("GET /\u{1} HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: test\n\n", 400),
        ("GET / HTTP/1.1\r\nHost : test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: test\r\nX: a\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: test\r\nX: a\u{0}b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: test\r\n: empty\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0x3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n", 501),
        ("GET / HTTP/2.0\r\nHost: test\r\n\r\n", 505),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("GET /a/%2e%2e/b HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("GET /a%zz HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("GET /a%00 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: test\r\nExpect: something\r\n\r\n", 417),
        ("GET /\(String(repeating: "a", count: 9_000)) HTTP/1.1\r\nHost: test\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\nHost: test\r\nX: \(String(repeating: "a", count: 40_000))\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: test\r\n\(String(repeating: "X: 1\r\n", count: 101))\r\n", 431),
    ]

    @Test("a malformed request is refused, what follows it is not read, and nothing reaches a backend")
    func malformedRequests() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            for (request, status) in Self.malformed {
                let label = String(request.prefix(120))
                let client = try node.connect()
                let bytes = request.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }
                try client.send(bytes)
                let answer = try client.readResponse()
                #expect(answer.status == status, "\(label)")
                #expect(problemTitle(answer) != nil, "\(label)")
                // A path that escapes its service leaves no doubt about where the next request begins.
                if answer.value("Connection") == "close" {
                    try? client.send("GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n")
                    #expect(try client.endsHere(), "\(label)")
                }
            }
            #expect(backend.bytes.isEmpty)
            #expect(try node.ask().status == 200)
        }
    }

    @Test("a chunked body that breaks midway is refused, and its backend gets no whole request")
    func malformedChunks() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            for bad in [
                "zz\r\n", "3\r\nabcd\r\n", "3 \r\nabc\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "3\nabc\n",
                "3\r\nabc\r\n\r\n",
            ] {
                let client = try node.connect()
                try client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n\(bad)")
                let answer = try client.readResponse()
                #expect(answer.status == 400, "\(bad)")
                #expect(try client.endsHere(), "\(bad)")
            }
            #expect(backend.requests.isEmpty)
        }
    }

    @Test("the refusals have their titles, as problem details")
    func titles() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([File.Service(path: "/here", urls: [backend.url])])
            file.rateLimit = "requestsPerSecond: 1, burstSize: 1"
            let node = try scene.node(file)
            let missing = try node.ask("GET /there HTTP/1.1")
            #expect(missing.status == 404)
            #expect(problemTitle(missing) == "Service not found")
            #expect(missing.text.contains("\"status\":404"))
            var refusal: WireMessage?
            for _ in 0..<20 where refusal == nil {
                let answer = try node.ask("GET /here HTTP/1.1")
                if answer.status == 429 { refusal = answer }
            }
            let limited = try #require(refusal)
            #expect(problemTitle(limited) == "Rate limit exceeded")
            #expect(limited.value("Retry-After") == "1")
            #expect(limited.value("RateLimit-Policy") == "\"default\";q=1;w=1")
            #expect(limited.value("RateLimit") == "\"default\";r=0;t=1")
        }
    }

    @Test("a refused upload does not disturb the next request on the connection")
    func refusedUpload() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([File.Service(path: "/here", urls: [backend.url])]))
            let client = try node.connect()
            let body = String(repeating: "GET /here HTTP/1.1\r\n\r\n", count: 2_000)
            try client.send("POST /there HTTP/1.1\r\nHost: test\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
            try client.send("GET /here HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readResponse().status == 404)
            #expect(try client.readResponse().text == "ok")
            #expect(backend.requests.count == 1)
        }
    }

    @Test("a body beyond the service's limit is 413, announced or not")
    func bodyLimit() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend], "limits: {bodyBytes: 10}"))
            #expect(try node.ask("POST / HTTP/1.1", fields: "Content-Length: 10\r\n", body: "0123456789").status == 200)
            #expect(
                try node.ask("POST / HTTP/1.1", fields: "Content-Length: 11\r\n", body: "0123456789a").status == 413)
            let client = try node.connect()
            try client.send(
                "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n"
            )
            #expect(try client.readResponse().status == 413)
            #expect(backend.requests.count == 1)
        }
    }

    @Test("a head that does not come to its end is 408; a connection without a request just ends")
    func slowHead() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "limits: {headerTimeout: 200ms, idleTimeout: 200ms, bodyTimeout: 200ms}"
            let node = try scene.node(file)
            let slow = try node.connect()
            try slow.send("GET / HTTP/1.1\r\nHost: te")
            #expect(try slow.readResponse().status == 408)
            #expect(try slow.endsHere())
            let silent = try node.connect()
            #expect(try silent.endsHere())
            let idle = try node.connect()
            try idle.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try idle.readResponse().status == 200)
            #expect(try idle.endsHere())
            let stalled = try node.connect()
            try stalled.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc")
            #expect(try stalled.readResponse().status == 408)
            #expect(try stalled.endsHere())
        }
    }
}
