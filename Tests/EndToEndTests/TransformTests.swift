import Primitives
import TestSupport
import Testing

@Suite("Transforms through a node")
struct TransformTests {
    private static func file(_ backend: RecordingBackend, _ transforms: String, path: String = "/") -> File {
        File([File.Service(path: path, urls: [backend.url], more: "transforms: {\(transforms)}")])
    }

    @Test("request headers are set, added and removed, and no spelling of a client's passes for them")
    func requestHeaders() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(
                    backend,
                    """
                    request: {set: {X-Client: "{client} {method} {hostname}", X-Where: "{service}{path}{query}"}, \
                    add: {Accept: "text/x"}, remove: [X-Debug]}
                    """))
            let answer = try node.ask(
                "POST /a/b?c=d HTTP/1.1",
                fields:
                    "x-client: evil\r\nX_Client: evil\r\nX.Client: evil\r\nAccept: text/y\r\nx-debug: 1\r\nX-Other: 2\r\n"
                    + "Content-Length: 2\r\n", body: "hi")
            #expect(answer.status == 200)
            let request = try #require(backend.requests.first)
            #expect(request.values("X-Client") == ["127.0.0.1 POST test"])
            #expect(request.values("X_Client").isEmpty && request.values("X.Client").isEmpty)
            #expect(request.values("X-Where") == ["main/a/b?c=d"])
            #expect(request.values("Accept") == ["text/y", "text/x"])
            #expect(request.values("X-Debug").isEmpty)
            #expect(request.values("X-Other") == ["2"])
            #expect(request.text == "hi" && request.value("Host") == "test")
            #expect(request.value("X-Origin-Host") == "\(backend.address)")
        }
    }

    @Test("answers get their headers, whoever gives them")
    func responseHeaders() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer("ok", fields: "Server: secret\r\nX-A: old\r\nx_a: older\r\nX-B: 1\r\n")
                return .keep
            }
            var file = Self.file(
                backend, "response: {set: {X-A: \"{path}\"}, add: {X-B: \"2\"}, remove: [Server]}")
            file.rateLimit = "requestsPerSecond: 1, burstSize: 1"
            let node = try scene.node(file)
            let answer = try node.ask("GET /x HTTP/1.1")
            #expect(answer.text == "ok")
            #expect(answer.values("X-A") == ["/x"] && answer.values("x_a").isEmpty)
            #expect(answer.values("X-B") == ["1", "2"])
            #expect(answer.values("Server").isEmpty)
            let refused = try node.ask("GET /y HTTP/1.1")
            #expect(refused.status == 429)
            #expect(refused.values("X-A") == ["/y"] && refused.values("X-B") == ["2"])
            // The next request of a connection has nothing of the one before.
            let wire = try node.connect()
            try wire.send("GET /z HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost : test\r\n\r\n")
            #expect(try wire.readResponse().values("X-A") == ["/z"])
            let malformed = try wire.readResponse()
            #expect(malformed.status == 400 && malformed.values("X-A").isEmpty)
        }
    }

    @Test("an answer of the gateway's own keeps what it says of itself, and has nothing twice")
    func ownAnswers() throws {
        try Scene.play { scene in
            let backend = try scene.backend(named: "one")
            var file = Self.file(
                backend,
                """
                response: {set: {Content-Type: text/x, Cache-Control: max-age=9, Retry-After: "99", Location: /x, \
                Allow: PUT, X-A: a}}, redirects: [{prefix: /old, to: /new}]
                """)
            file.rateLimit = "requestsPerSecond: 1, burstSize: 1"
            let node = try scene.node(file)
            let answer = try node.ask("GET /x HTTP/1.1")
            #expect(answer.values("Content-Type") == ["text/x"] && answer.values("Cache-Control") == ["max-age=9"])
            let moved = try node.ask("GET /old/1 HTTP/1.1")
            #expect(moved.status == 308 && moved.values("Location") == ["/new"])
            #expect(moved.values("X-A") == ["a"])
            let refused = try node.ask("GET /y HTTP/1.1")
            #expect(refused.status == 429)
            #expect(refused.values("Content-Type") == ["application/problem+json"])
            #expect(refused.values("Retry-After") == ["1"])
            for name in ["Content-Type", "Cache-Control", "Retry-After", "Location", "Allow", "X-A"] {
                #expect(refused.values(name).count == 1, "\(name)")
            }
        }
    }

    @Test("no trailer says what the configuration sets or removes in the head, in either direction")
    func trailers() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.wire.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
                        + "X-A: evil\r\nX.A: evil\r\nX-B: secret\r\nX-Job: evil\r\nX-Kept: 1\r\n\r\n")
                return .keep
            }
            var file = Self.file(
                backend,
                "request: {set: {X-Client: \"{client}\"}, remove: [X-Debug]}, response: {set: {X-A: a}, remove: [X-B]}")
            file.gateway = "requestID: {header: X-Job, accept: none}"
            let node = try scene.node(file, ["--set", "tracing={}"])
            let wire = try node.connect()
            for _ in 0..<2 {
                try wire.send(
                    "POST / HTTP/1.1\r\nHost: test\r\nConnection: TE\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
                        + "2\r\nhi\r\n0\r\nX-Client: evil\r\nx_client: evil\r\nX-Debug: 1\r\nX-Job: evil\r\n"
                        + "traceparent: evil\r\nX-Kept: 1\r\n\r\n")
                let answer = try wire.readResponse()
                #expect(answer.text == "ok" && answer.values("X-A") == ["a"])
                #expect(answer.trailers == "X-Kept: 1\r\n")
            }
            #expect(backend.requests.map(\.trailers) == ["X-Kept: 1\r\n", "X-Kept: 1\r\n"])
        }
    }

    static let paths: [(String, String)] = [
        ("/v1", "/api/v1"), ("/v1/a?b=/v1", "/api/v1/a?b=/v1"), ("/v10", "/v10"), ("/users/42?x", "/u/42?x"),
        ("/users/x", "/users/x"), ("/twice/a/b", "/b/a/b"), ("/", "/"),
    ]

    @Test("paths are rewritten by the first rule that fits; the query stays", arguments: ["", "/base"])
    func rewrites(base: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(
                File([
                    File.Service(
                        path: "/s", urls: ["\(backend.url)\(base)"],
                        more: """
                            transforms: {rewrite: [{prefix: /v1, to: "/api/v1{rest}"}, {pattern: "/users/([0-9]+)", to: "/u/{1}"}, \
                            {pattern: "/twice/(.*)/(.*)", to: "/{2}/{1}/{2}"}, {pattern: "/dots/(.*)/(.*)", to: "/{1}{2}"}]}
                            """)
                ]))
            for (path, expected) in Self.paths {
                #expect(try node.ask("GET /s\(path) HTTP/1.1").status == 200)
                #expect(backend.requests.last?.target == base + expected)
            }
            // Neither half is a dot segment, and together they are one.
            for path in ["/s/dots/.a/../b", "/s/dots/a/%2e%2e"] {
                #expect(try node.ask("GET \(path) HTTP/1.1").status == 400)
            }
            let long = String(repeating: "a", count: 7_000)
            #expect(try node.ask("GET /s/twice/a/\(long) HTTP/1.1").status == 200)
            #expect(try node.ask("GET /s/twice/\(long)\(long.prefix(500))/b HTTP/1.1").status == 200)
            #expect(backend.requests.count == Self.paths.count + 2)
        }
    }

    @Test("redirects lead where the file says, and no client leads them elsewhere")
    func redirects() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(
                    backend,
                    """
                    redirects: [{prefix: /old, to: "/new{rest}{query}", status: 301}, \
                    {pattern: "/go/(.*)", to: "/{1}"}, {prefix: /away, to: "https://{host}.example{rest}", status: 302}]
                    """))
            func location(_ target: String) throws -> String? {
                let answer = try node.ask("GET \(target) HTTP/1.1")
                #expect(answer.status == 200 || answer.body.isEmpty)
                return answer.value("Location").map { "\(answer.status) \($0)" }
            }
            #expect(try location("/old/a?b=c") == "301 /new/a?b=c")
            #expect(try location("/old") == "301 /new")
            #expect(try location("/older") == nil)
            #expect(try location("/go/x") == "308 /x")
            #expect(try location("/go//evil.test/") == "308 /evil.test/")
            #expect(try location("/away/x") == "302 https://test.example/x")
            // HTTP/1.0 need not name a host, and then there is none to lead to.
            for (target, status) in [("/away/x", 400), ("/old/x", 301)] {
                let wire = try node.connect()
                try wire.send("GET \(target) HTTP/1.0\r\n\r\n")
                let answer = try wire.readResponse()
                #expect(answer.status == status && (answer.value("Location") == nil) == (status == 400))
            }
            #expect(backend.requests.map(\.target) == ["/older"])
        }
    }

    @Test("preflights are answered, and answers say which origin may read them")
    func cors() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer("ok", fields: "Access-Control-Allow-Origin: *\r\nVary: Accept\r\n")
                return .keep
            }
            var file = Self.file(
                backend,
                """
                cors: {origins: ["https://a.example", "https://*.b.example"], methods: [GET, PUT], headers: [X-A, X-B], \
                expose: [X-C], credentials: true, maxAge: 5m}
                """)
            file.services[0].more += ", methods: [GET, PUT]"
            let node = try scene.node(file)
            let asks = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\n"
            let preflight = try node.ask("OPTIONS /x HTTP/1.1", fields: "Origin: https://x.b.example\r\n" + asks)
            #expect(preflight.status == 200)
            #expect(preflight.value("Access-Control-Allow-Origin") == "https://x.b.example")
            #expect(preflight.value("Access-Control-Allow-Methods") == "GET, PUT")
            #expect(preflight.value("Access-Control-Allow-Headers") == "X-A, X-B")
            #expect(preflight.value("Access-Control-Allow-Credentials") == "true")
            #expect(preflight.value("Access-Control-Max-Age") == "300")
            #expect(preflight.value("Vary") == "Origin")
            for origin in ["https://b.example", "https://evil.test", "null", "https://a.example, https://a.example"] {
                let refused = try node.ask("OPTIONS /x HTTP/1.1", fields: "Origin: \(origin)\r\n" + asks)
                #expect(refused.status == 403)
                #expect(refused.values("Access-Control-Allow-Origin").isEmpty)
                #expect(refused.text.contains("origin-not-allowed"))
            }
            #expect(backend.requests.isEmpty)
            let allowed = try node.ask(fields: "Origin: https://a.example\r\n")
            #expect(allowed.values("Access-Control-Allow-Origin") == ["https://a.example"])
            #expect(allowed.value("Access-Control-Expose-Headers") == "X-C")
            #expect(allowed.values("Vary").sorted() == ["Accept", "Origin"])
            for fields in ["", "Origin: https://evil.test\r\n"] {
                let other = try node.ask(fields: fields)
                #expect(other.text == "ok")
                #expect(other.values("Access-Control-Allow-Origin").isEmpty)
                #expect(other.values("Vary").sorted() == ["Accept", "Origin"])
            }
            // A page that is refused learns why.
            let refused = try node.ask("POST / HTTP/1.1", fields: "Origin: https://a.example\r\n")
            #expect(refused.status == 405)
            #expect(refused.values("Access-Control-Allow-Origin") == ["https://a.example"])
        }
    }

    @Test("where any origin may read, a cache can give the same answer to a page and to who names no origin")
    func corsForAll() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer("ok", fields: "Access-Control-Allow-Origin: https://a.example\r\nVary: Accept\r\n")
                return .keep
            }
            let node = try scene.node(Self.file(backend, "cors: {origins: [\"*\"], expose: [X-C]}"))
            for fields in ["", "Origin: https://a.example\r\n", "Origin: null\r\n"] {
                let answer = try node.ask(fields: fields)
                #expect(answer.values("Access-Control-Allow-Origin") == ["*"])
                #expect(answer.values("Access-Control-Expose-Headers") == ["X-C"])
                #expect(answer.values("Vary") == ["Accept"])
            }
        }
    }

    @Test("the answer that opens a WebSocket gets what every answer gets, and its handshake is untouched")
    func switching() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.backend(scene) { _, wire in _ = try? wire.readToEnd() }
            var file = Self.file(backend, "response: {set: {X-A: \"{path} {requestID}\"}, remove: [Server]}")
            file.gateway = "requestID: true"
            file.rateLimit = "policies: [{name: few, limit: 9, window: 1h}]"
            let node = try scene.node(file)
            let client = try node.connect()
            try client.send(TunnelScene.request)
            let head = try #require(try client.readHead())
            #expect(head.status == 101)
            #expect(head.values("X-A").count == 1 && head.value("X-A")?.hasPrefix("/chat ") == true)
            let names = head.values("X-Request-Id")
            #expect(names.count == 1 && head.value("X-A") == "/chat \(names.first ?? "")")
            #expect(head.values("Sec-WebSocket-Accept") == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="])
            #expect(head.values("RateLimit").count == 1)
            #expect(head.values("Upgrade") == ["websocket"] && head.values("Connection") == ["Upgrade"])
            #expect(head.head.hasSuffix("\r\n\r\n"))
        }
    }

    @Test("maintenance answers everyone but its guests")
    func maintenance() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(backend, "maintenance: {retryAfter: 10m, text: \"Back at noon.\", allow: [127.0.0.9/32]}"))
            let answer = try node.ask()
            #expect(answer.status == 503 && answer.text == "Back at noon.")
            #expect(answer.value("Retry-After") == "600")
            #expect(answer.value("Content-Type") == "text/plain; charset=utf-8")
            #expect(try node.ask("HEAD / HTTP/1.1").value("Content-Length") == "13")
            #expect(try node.ask("POST / HTTP/1.1", fields: "Content-Length: 3\r\n", body: "abc").status == 503)
            #expect(backend.requests.isEmpty)
            #expect(try node.ask(from: IPAddress("127.0.0.9")).status == 200)
            let plain = try scene.node(Self.file(backend, "maintenance: {status: 418, retryAfter: 1500ms}"))
            let problem = try plain.ask()
            #expect(problem.status == 418 && problem.value("Retry-After") == "2")
            #expect(problemTitle(problem) == "Under maintenance")
            for more in ["", ", text: Soon."] {
                let node = try scene.node(Self.file(backend, "maintenance: {status: 503\(more)}"))
                let answer = try node.ask()
                #expect(answer.status == 503 && answer.values("Retry-After").isEmpty)
            }
        }
    }

    // MARK: Compression

    private static let long = String(repeating: "All work and no play. ", count: 2_000)

    private static func unzipped(_ answer: WireMessage) -> String? {
        let reader = Gunzip()
        let bytes = reader.read(answer.body)
        return reader.hasEnded ? bytes.map { String(decoding: $0, as: UTF8.self) } : nil
    }

    @Test(
        "what is worth it is compressed for who wants it, with a length or in chunks",
        arguments: ["length", "chunks", "close"])
    func compresses(framing: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let fields =
                    "Content-Type: text/html; charset=utf-8\r\nETag: \"x\"\r\nAccept-Ranges: bytes\r\nVary: Cookie\r\n"
                switch framing {
                case "length": try exchange.answer(Self.long, fields: fields)
                case "chunks":
                    try exchange.wire.send("HTTP/1.1 200 OK\r\n\(fields)Transfer-Encoding: chunked\r\n\r\n")
                    for piece in [Self.long.prefix(10), Self.long.dropFirst(10)] {
                        try exchange.wire.send("\(String(piece.utf8.count, radix: 16))\r\n\(piece)\r\n")
                    }
                    try exchange.wire.send("0\r\nX-Trailer: a\r\n\r\n")
                default:
                    try exchange.wire.send("HTTP/1.1 200 OK\r\n\(fields)\r\n\(Self.long)")
                    return .close
                }
                return .keep
            }
            let node = try scene.node(Self.file(backend, "compression: true"))
            let wire = try node.connect()
            for _ in 0..<3 {
                try wire.send("GET / HTTP/1.1\r\nHost: test\r\nAccept-Encoding: br, gzip\r\n\r\n")
                let answer = try wire.readResponse()
                #expect(answer.value("Content-Encoding") == "gzip")
                #expect(answer.value("ETag") == "W/\"x\"")
                #expect(answer.values("Vary").sorted() == ["Accept-Encoding", "Cookie"])
                #expect(answer.values("Content-Length").isEmpty && answer.values("Accept-Ranges").isEmpty)
                #expect(answer.body.count < 2_000)
                #expect(Self.unzipped(answer) == Self.long)
                // Another one in between, plain and complete.
                try wire.send("GET / HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip;q=0\r\n\r\n")
                let plain = try wire.readResponse()
                #expect(plain.text == Self.long)
                #expect(plain.values("Content-Encoding").isEmpty)
                #expect(plain.value("ETag") == "\"x\"")
                #expect(plain.values("Vary").sorted() == ["Accept-Encoding", "Cookie"])
            }
        }
    }

    @Test("no compressed content has a strong tag, whoever gives it", arguments: ["set", "add"])
    func tags(edit: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer(Self.long, fields: "Content-Type: text/html\r\n")
                return .keep
            }
            let node = try scene.node(
                Self.file(backend, "compression: true, response: {\(edit): {ETag: '\"own\"', X-ETag: '\"other\"'}}"))
            let compressed = try node.ask(fields: "Accept-Encoding: gzip\r\n")
            #expect(compressed.value("Content-Encoding") == "gzip")
            #expect(compressed.values("ETag") == ["W/\"own\""] && compressed.value("X-ETag") == "\"other\"")
            #expect(try node.ask().values("ETag") == ["\"own\""])
        }
    }

    static let untouched: [(name: String, status: String, fields: String, body: String)] = [
        ("short", "200 OK", "Content-Type: text/html\r\n", "short"),
        ("another type", "200 OK", "Content-Type: image/png\r\n", long), ("no type", "200 OK", "", long),
        ("compressed already", "200 OK", "Content-Type: text/html\r\nContent-Encoding: br\r\n", long),
        ("not to be changed", "200 OK", "Content-Type: text/html\r\nCache-Control: public, No-Transform\r\n", long),
        ("a part", "206 Partial Content", "Content-Type: text/html\r\nContent-Range: bytes 0-9/10\r\n", long),
        ("with a digest", "200 OK", "Content-Type: text/html\r\nRepr-Digest: sha-256=:x:\r\n", long),
    ]

    @Test("everything else stays as it is", arguments: untouched)
    func leaves(row: (name: String, status: String, fields: String, body: String)) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer(row.body, status: row.status, fields: row.fields)
                return .keep
            }
            let node = try scene.node(Self.file(backend, "compression: true"))
            let answer = try node.ask(fields: "Accept-Encoding: gzip\r\n")
            #expect(answer.text == row.body)
            #expect(answer.value("Content-Length") == "\(row.body.utf8.count)")
            #expect(answer.values("Content-Encoding").filter { $0 == "gzip" }.isEmpty)
            // RFC 9110 §15.3.7: a part says what the whole would.
            #expect(row.name != "a part" || answer.values("Vary") == ["Accept-Encoding"])
        }
    }

    private struct Bodiless: Sendable {
        var target: String
        var method = "GET"
        var fields = ""
        var tag: String?
        var coding: [String] = []
        var length: String?
        var vary = ["Accept-Encoding"]
    }

    private static let bodiless = [
        Bodiless(target: "/204", tag: "\"x\"", vary: []),
        // Its head is that of what a GET gets.
        Bodiless(target: "/", method: "HEAD", tag: "W/\"x\"", coding: ["gzip"]),
        Bodiless(target: "/short", method: "HEAD", tag: "\"x\"", length: "10"),
        Bodiless(target: "/image", method: "HEAD", tag: "\"x\"", length: "44000", vary: []),
        // The tag is that of what the client has; without a word of the client's, that of what a 200 would bring.
        Bodiless(target: "/304", tag: "W/\"x\""),
        Bodiless(target: "/304", fields: "If-None-Match: \"y\", W/\"x\"\r\n", tag: "W/\"x\""),
        Bodiless(target: "/304", fields: "If-None-Match: \"x\", W/\"xy\"\r\n", tag: "\"x\""),
        Bodiless(target: "/304/silent", tag: "\"x\""),
        Bodiless(target: "/304/silent", fields: "If-None-Match: W/\"x\"\r\n", tag: "W/\"x\""),
        Bodiless(target: "/304/image", fields: "If-None-Match: W/\"x\"\r\n", tag: "\"x\"", vary: []),
        Bodiless(target: "/304", method: "HEAD", fields: "If-None-Match: W/\"x\"\r\n", tag: "W/\"x\""),
    ]

    @Test("answers to HEAD, and 304, have the head of what is compressed; HTTP/1.0 gets nothing compressed")
    func bodiless() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let target = exchange.request.target
                let type = target.hasSuffix("image") ? "image/png" : "text/html"
                let tag = "ETag: \"x\"\r\n"
                let fields = "Content-Type: \(type)\r\n\(tag)"
                if target.hasPrefix("/304") {
                    let known = target.hasSuffix("silent") ? tag : fields
                    try exchange.wire.send("HTTP/1.1 304 Not Modified\r\n\(known)\r\n")
                } else if target == "/204" {
                    try exchange.wire.send("HTTP/1.1 204 No Content\r\n\(fields)\r\n")
                } else if exchange.request.method == "HEAD" {
                    let length = target == "/short" ? 10 : 44_000
                    try exchange.wire.send(
                        "HTTP/1.1 200 OK\r\n\(fields)Accept-Ranges: bytes\r\nContent-Length: \(length)\r\n\r\n")
                } else {
                    try exchange.answer(Self.long, fields: fields)
                }
                return .keep
            }
            let node = try scene.node(Self.file(backend, "compression: true"))
            let wire = try node.connect()
            for row in Self.bodiless {
                try wire.send(
                    "\(row.method) \(row.target) HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\(row.fields)\r\n")
                let answer = try wire.readResponse(to: row.method)
                #expect(answer.values("Content-Encoding") == row.coding, "\(row)")
                #expect(answer.value("ETag") == row.tag, "\(row)")
                #expect(answer.value("Content-Length") == row.length, "\(row)")
                #expect(answer.values("Vary") == row.vary, "\(row)")
                #expect(row.coding.isEmpty || answer.values("Accept-Ranges").isEmpty)
            }
            // For who wants it plain, nothing but the word to caches.
            try wire.send("GET /304 HTTP/1.1\r\nHost: test\r\nIf-None-Match: \"x\"\r\n\r\n")
            let plain = try wire.readResponse()
            #expect(plain.value("ETag") == "\"x\"" && plain.values("Vary") == ["Accept-Encoding"])
            try wire.send("GET / HTTP/1.0\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n")
            let old = try wire.readResponse()
            #expect(old.text == Self.long && old.values("Content-Encoding").isEmpty)
        }
    }

    @Test("events reach the client when they are sent, and the client may leave in between")
    func events() throws {
        try Scene.play { scene in
            // It sends an event for each line of the body that it gets.
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, _ in
                    guard try wire.readHead() != nil else { return }
                    try wire.send(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                    while let word = try wire.readLine(), word != "end" {
                        let event = "data: \(word)\n\n"
                        try wire.send("\(String(event.utf8.count, radix: 16))\r\n\(event)\r\n")
                    }
                    try wire.send("0\r\n\r\n")
                }))
            let node = try scene.node(Self.file(backend, "compression: {types: [\"text/*\"], minBytes: 0}"))
            let client = try node.connect()
            try client.send(
                "POST / HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\nContent-Length: 15\r\n\r\none\r\n")
            #expect(try client.readHead()?.value("Content-Encoding") == "gzip")
            let reader = Gunzip()
            func next() throws -> String? {
                let size = try #require(try client.readLine().flatMap { Int($0, radix: 16) })
                let chunk = try client.read(size)
                _ = try client.read(2)
                return reader.read(chunk).map { String(decoding: $0, as: UTF8.self) }
            }
            #expect(try next() == "data: one\n\n")
            try client.send("two\r\n")
            #expect(try next() == "data: two\n\n")
            client.close()
            // What the client has left behind is given back; the node goes on.
            #expect(try node.ask(fields: "Accept-Encoding: gzip\r\nContent-Length: 4\r\n", body: "end\n").status == 200)
        }
    }

    @Test("a body that breaks off ends in a reset, compressed or not")
    func broken() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.wire.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100000\r\n\r\n\(Self.long)")
                return .close
            }
            let node = try scene.node(Self.file(backend, "compression: true"))
            let client = try node.connect()
            try client.send("GET / HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n")
            #expect(throws: WireError.self) { try client.readResponse() }
        }
    }
}
