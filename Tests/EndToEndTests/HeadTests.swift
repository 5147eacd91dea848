import Primitives
import TestSupport
import Testing

@Suite("Heads on their way through a node")
struct HeadTests {
    @Test("a request reaches its backend with exactly these bytes")
    func request() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let file = File([File.Service(path: "/api", urls: [backend.url])])
            let node = try scene.node(file)
            let client = try node.connect()
            try client.send(
                "GET /api/a%2Fb?x=%20&y=/../ HTTP/1.1\r\nHost: Example.test:80\r\naCcEpT:  */* \r\nCookie: a=1\r\nX-Empty:\r\n\r\n"
            )
            _ = try client.readResponse()
            #expect(
                String(decoding: backend.bytes, as: UTF8.self)
                    == "GET /a%2Fb?x=%20&y=/../ HTTP/1.1\r\nHost: Example.test:80\r\naCcEpT:  */* \r\nCookie: a=1\r\nX-Empty:\r\n"
                    + "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: Example.test:80\r\nX-Forwarded-Proto: http\r\n"
                    + "Via: 1.1 sluice\r\nX-Origin-Host: \(backend.address)\r\n\r\n")
        }
    }

    @Test("hop-by-hop fields, and those named in Connection, stay on their hop in both directions")
    func hopByHop() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer(
                    "ok",
                    fields:
                        "Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-Kept: 1\r\nProxy-Authenticate: Basic\r\n"
                )
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            try client.send(
                "GET / HTTP/1.1\r\nHost: test\r\nConnection: X-Secret, close, X-Other\r\nX-Secret: 1\r\nx-other: 2\r\nKeep-Alive: 1\r\n"
                    + "TE: trailers\r\nUpgrade: websocket\r\nProxy-Connection: keep-alive\r\nTrailer: a\r\nX-Kept: 1\r\n\r\n"
            )
            let answer = try client.readResponse()
            let request = try #require(backend.requests.first)
            for name in ["Connection", "X-Secret", "X-Other", "Keep-Alive", "TE", "Upgrade", "Proxy-Connection"] {
                #expect(request.values(name).isEmpty, "\(name) reached the backend")
            }
            #expect(request.value("X-Kept") == "1")
            #expect(answer.value("Connection") == "close")
            for name in ["X-Private", "Keep-Alive", "Upgrade"] {
                #expect(answer.values(name).isEmpty, "\(name) reached the client")
            }
            #expect(answer.value("X-Kept") == "1")
            #expect(answer.value("Via") == "1.1 sluice")
            #expect(try client.endsHere())
        }
    }

    @Test("Host is the client's, or the backend's where the service says so")
    func host() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(
                File([
                    File.Service(name: "kept", path: "/kept", urls: [backend.url]),
                    File.Service(name: "own", path: "/own", urls: [backend.url], more: "hostHeader: backend"),
                ]))
            _ = try node.ask("GET /kept HTTP/1.1")
            _ = try node.ask("GET /own HTTP/1.1")
            let absolute = try node.connect()
            try absolute.send("GET http://other.test/kept/x HTTP/1.1\r\nHost: test\r\n\r\n")
            _ = try absolute.readResponse()
            #expect(backend.requests.map { $0.values("Host") } == [["test"], ["\(backend.address)"], ["other.test"]])
            #expect(backend.requests.map { $0.values("X-Forwarded-Host") } == [["test"], ["test"], ["other.test"]])
            #expect(
                backend.requests.map { $0.values("X-Origin-Host") }
                    == [[String]](repeating: ["\(backend.address)"], count: 3))
            #expect(backend.requests.last?.target == "/x")
        }
    }

    static let forged =
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: https\r\nX-Origin-Host: evil\r\n"
        + "Forwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n"

    @Test("what an untrusted client says of forwarding is replaced")
    func untrusted() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            _ = try node.ask(fields: Self.forged, from: IPAddress("127.0.0.9"))
            let request = try #require(backend.requests.first)
            #expect(request.values("X-Forwarded-For") == ["127.0.0.9"])
            #expect(request.values("X-Forwarded-Host") == ["test"])
            #expect(request.values("X-Forwarded-Proto") == ["http"])
            #expect(request.values("X-Origin-Host") == ["\(backend.address)"])
            #expect(request.values("Forwarded").isEmpty)
            #expect(request.values("X-Real-IP").isEmpty)
            #expect(!request.head.contains("203.0.113.9"))
        }
    }

    @Test("what a trusted proxy says of forwarding is continued")
    func trusted() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "trustedProxies: [\"127.0.0.8/31\"]"
            let node = try scene.node(file)
            _ = try node.ask(fields: Self.forged + "X-Forwarded-For: 198.51.100.1\r\n", from: IPAddress("127.0.0.9"))
            _ = try node.ask(fields: "", from: IPAddress("127.0.0.8"))
            let requests = backend.requests
            #expect(requests[0].values("X-Forwarded-For") == ["203.0.113.9, 198.51.100.1, 127.0.0.9"])
            #expect(requests[0].values("X-Forwarded-Host") == ["evil.test"])
            #expect(requests[0].values("X-Forwarded-Proto") == ["https"])
            #expect(requests[0].values("X-Origin-Host") == ["\(backend.address)"])
            #expect(requests[1].values("X-Forwarded-For") == ["127.0.0.8"])
            #expect(requests[1].values("X-Forwarded-Proto") == ["http"])
        }
    }

    @Test("Via grows by this hop and keeps what was there")
    func via() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer("", fields: "Via: 1.0 inner\r\n")
                return .keep
            }
            var file = File([backend])
            file.gateway = "via: edge"
            let node = try scene.node(file)
            let answer = try node.ask(fields: "Via: 1.1 outer\r\n")
            #expect(backend.requests.first?.values("Via") == ["1.1 outer", "1.1 edge"])
            #expect(answer.values("Via") == ["1.0 inner", "1.1 edge"])
            _ = try node.ask("GET / HTTP/1.0")
            #expect(backend.requests.last?.values("Via") == ["1.0 edge"])
        }
    }

    /// Target, the service that takes it, the target at the backend.
    static let targets: [(String, String?, String)] = [
        ("/api/users", "users", "/"),
        ("/api/users/", "users", "/"),
        ("/api/users?id=1", "users", "/?id=1"),
        ("/api/users/7?a=b&c=%2F", "users", "/7?a=b&c=%2F"),
        ("/api/users//x", "users", "/x"),
        ("/api/users/%7Euser/a%20b", "users", "/%7Euser/a%20b"),
        ("/api/users/admin", "admin", "/api/users/admin"),
        ("/api/users/admin/x?y", "admin", "/api/users/admin/x?y"),
        ("/api/users/administrator", "users", "/administrator"),
        ("/api/usersextra", "api", "/usersextra"),
        ("/api", "api", "/"),
        ("/api?", "api", "/?"),
        ("/apix", nil, ""),
        ("/API/users", nil, ""),
        ("/", nil, ""),
        ("/api%2Fusers", nil, ""),
    ]

    @Test("the longest prefix on a segment border wins; the prefix goes, all behind its slash stays as written")
    func routes() throws {
        try Scene.play { scene in
            let names = ["api", "users", "admin"]
            let backends = try names.map { try scene.backend(named: $0) }
            let node = try scene.node(
                File([
                    File.Service(name: "api", path: "/api", urls: [backends[0].url]),
                    File.Service(name: "users", path: "/api/users", urls: [backends[1].url]),
                    File.Service(
                        name: "admin", path: "/api/users/admin", urls: [backends[2].url], more: "stripPrefix: false"),
                ]))
            for (target, service, rest) in Self.targets {
                let answer = try node.ask("GET \(target) HTTP/1.1")
                guard let service, let index = names.firstIndex(of: service) else {
                    #expect(answer.status == 404, "\(target)")
                    #expect(problemTitle(answer) == "Service not found", "\(target)")
                    continue
                }
                #expect(answer.text == service, "\(target)")
                #expect(backends[index].requests.last?.target == rest, "\(target)")
            }
        }
    }

    @Test("HEAD is answered without a body and the connection goes on")
    func head() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let body = exchange.request.method == "HEAD" ? "" : "12345"
                try exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\(body)")
                return .keep
            }
            let node = try scene.node(File([File.Service(path: "/a", urls: [backend.url])]))
            let client = try node.connect()
            try client.send(
                "HEAD /a HTTP/1.1\r\nHost: test\r\n\r\nHEAD /none HTTP/1.1\r\nHost: test\r\n\r\nGET /a HTTP/1.1\r\nHost: test\r\n\r\n"
            )
            #expect(try client.readResponse(to: "HEAD").value("Content-Length") == "5")
            let refusal = try client.readResponse(to: "HEAD")
            #expect(refusal.status == 404)
            #expect(refusal.value("Content-Length") != "0")
            #expect(try client.readResponse().text == "12345")
            #expect(backend.connections == 1)
        }
    }

    @Test(
        "answers without a body by their status end with their head", arguments: ["204 No Content", "304 Not Modified"])
    func bodiless(status: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let field = status.hasPrefix("304") ? "Content-Length: 5\r\n" : ""
                try exchange.wire.send("HTTP/1.1 \(status)\r\nETag: \"1\"\r\n\(field)\r\n")
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for _ in 0..<3 {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let answer = try client.readResponse()
                #expect(answer.startLine == "HTTP/1.1 \(status)")
                #expect(answer.value("ETag") == "\"1\"")
                #expect(answer.values("Transfer-Encoding").isEmpty)
            }
            #expect(backend.connections == 1)
        }
    }

    @Test("interim answers reach clients that know them, and no others")
    func interim() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.wire.send(
                    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
                try exchange.answer("done")
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for _ in 0..<2 {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let hints = try client.readResponse()
                #expect(hints.status == 103)
                #expect(hints.value("Link") == "</a.css>")
                #expect(try client.readResponse().status == 102)
                #expect(try client.readResponse().text == "done")
            }
            let old = try node.ask("GET / HTTP/1.0")
            #expect(old.status == 200)
            #expect(old.text == "done")
        }
    }

    @Test("a client that expects 100 (Continue) hears it from the backend, or its refusal, before it sends the body")
    func expectContinue() throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { backend, wire, _ in
                    while var request = try wire.readHead() {
                        guard request.target != "/no" else {
                            backend.record(request)
                            try wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                            return
                        }
                        try wire.send("HTTP/1.1 100 Continue\r\n\r\n")
                        request.body = try wire.read(4)
                        backend.record(request)
                        try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    }
                }))
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for _ in 0..<2 {
                try client.send("POST /yes HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
                #expect(try client.readResponse().status == 100)
                try client.send("body")
                #expect(try client.readResponse().status == 200)
            }
            try client.send("POST /no HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            #expect(try client.readResponse().status == 403)
            // Nobody can tell whether the body still comes, so the connection ends.
            #expect(try client.endsHere())
            #expect(backend.requests.map(\.text) == ["body", "body", ""])
            #expect(backend.requests.allSatisfy { $0.value("Expect") == "100-continue" })
        }
    }

    @Test("an HTTP/1.0 client is answered in its own terms, with and without keep-alive")
    func http10() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.wire.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
                return .keep
            }
            let plain = try scene.backend()
            let node = try scene.node(
                File([
                    File.Service(name: "chunked", path: "/chunked", urls: [backend.url]),
                    File.Service(name: "plain", path: "/plain", urls: [plain.url]),
                ]))
            let chunked = try node.connect()
            try chunked.send("GET /chunked HTTP/1.0\r\n\r\n")
            let answer = try chunked.readResponse()
            #expect(answer.text == "abcde")
            #expect(answer.values("Transfer-Encoding").isEmpty)
            #expect(backend.requests.first?.startLine == "GET / HTTP/1.1")

            let closing = try node.connect()
            try closing.send("GET /plain HTTP/1.0\r\n\r\n")
            #expect(try closing.readResponse().text == "ok")
            #expect(try closing.endsHere())

            let kept = try node.connect()
            for _ in 0..<3 {
                try kept.send("GET /plain HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
                let answer = try kept.readResponse()
                #expect(answer.value("Connection") == "keep-alive")
                #expect(answer.text == "ok")
            }
        }
    }
}
