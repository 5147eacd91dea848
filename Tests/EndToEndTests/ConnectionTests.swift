import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("Connections to clients and backends")
struct ConnectionTests {
    @Test("a backend's bound on connections makes requests wait, not fail")
    func poolLimit() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer(exchange.request.target)
                return .keep
            }
            let node = try scene.node(File([backend], "pool: {idle: 1, connections: 1}, timeouts: {connect: 10s}"))
            let clients = try (0..<10).map { _ in try node.connect() }
            for round in 0..<3 {
                for (index, client) in clients.enumerated() {
                    try client.send("GET /\(round)/\(index) HTTP/1.1\r\nHost: test\r\n\r\n")
                }
                for (index, client) in clients.enumerated() {
                    #expect(try client.readResponse().text == "/\(round)/\(index)")
                }
            }
            #expect(backend.connections == 1)
        }
    }

    @Test("a request that finds no place in time is 503")
    func poolFull() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                _ = try exchange.wire.endsHere()
                return .close
            }
            let node = try scene.node(File([backend], "pool: {idle: 1, connections: 1}, timeouts: {connect: 100ms}"))
            let first = try node.connect()
            try first.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            try eventually("the place is taken") { backend.requests.count == 1 }
            let answer = try node.ask()
            #expect(answer.status == 503)
            #expect(problemTitle(answer) == "Backends are busy")
        }
    }

    @Test("a connection ends after the configured number of requests, and says so before")
    func requestsPerConnection() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "limits: {requestsPerConnection: 3}"
            let node = try scene.node(file)
            let client = try node.connect()
            for i in 1...3 {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try client.readResponse().value("Connection") == (i == 3 ? "close" : nil))
            }
            #expect(try client.endsHere())
        }
    }

    @Test("backends that close, or speak HTTP/1.0, get a new connection each time", arguments: ["1.1", "1.0"])
    func closingBackend(version: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let field = version == "1.1" ? "Connection: close\r\n" : ""
                try exchange.wire.send("HTTP/\(version) 200 OK\r\n\(field)Content-Length: 2\r\n\r\nok")
                // It says that it closes, and takes its time.
                _ = try exchange.wire.endsHere()
                return .close
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for _ in 0..<4 {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let answer = try client.readResponse()
                #expect(answer.startLine == "HTTP/1.1 200 OK")
                #expect(answer.text == "ok")
            }
            #expect(backend.connections == 4)
        }
    }

    @Test("a backend by its IPv6 address is found, and named as in its URL")
    func version6() throws {
        try Scene.play { scene in
            let backend = try scene.backend(on: #require(IPAddress("::1")))
            #expect(backend.url.hasPrefix("http://[::1]:"))
            let file = File([backend], "    hostHeader: backend")
            let node = try scene.node(file)
            let client = try node.connect()
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readResponse().status == 200)
            #expect(backend.requests.last?.value("Host") == String(backend.url.dropFirst(7)))
        }
    }

    @Test("a name is resolved, and a base path stands before the forwarded one")
    func names() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let port = backend.address.port
            let file = File([
                File.Service(
                    name: "name", path: "/name", urls: ["http://localhost:\(port)"], more: "hostHeader: backend"),
                File.Service(name: "base", path: "/base", urls: ["http://127.0.0.1:\(port)/v2"]),
            ])
            let node = try scene.node(file)
            #expect(try node.ask("GET /name/x HTTP/1.1").status == 200)
            #expect(try node.ask("GET /base/x?y HTTP/1.1").status == 200)
            #expect(try node.ask("GET /base HTTP/1.1").status == 200)
            #expect(backend.requests.map(\.target) == ["/x", "/v2/x?y", "/v2/"])
            #expect(backend.requests.first?.value("Host") == "localhost:\(port)")
        }
    }

    @Test("an answer that comes before the upload has ended is delivered, and no connection is used again")
    func answerBeforeEnd() throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, number in
                    guard try wire.readHead() != nil else { return }
                    try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\(number)")
                    _ = try? wire.readToEnd()
                }))
            let node = try scene.node(File([backend]))
            for i in 0..<3 {
                let client = try node.connect()
                try client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 50000000\r\n\r\nabc")
                let answer = try client.readResponse()
                #expect(answer.text == "\(i)")
                #expect(answer.value("Connection") == "close")
            }
        }
    }

    @Test("a Redis that asks for a password gets it from the URL; a wrong one is told without it")
    func password() throws {
        try Scene.play { scene in
            let redis = try scene.redis([
                "--user", "default", "off", "--user", "gate", "on", ">s3cret", "~*", "&*", "+@all",
            ])
            let backend = try scene.backend()
            var file = File([backend])
            file.rateLimit = "requestsPerSecond: 5, redisURL: \"redis://gate:s3cret@127.0.0.1:\(redis.port)/0\""
            let node = try scene.node(file)
            try LimitTests.reached([node])
            #expect(try node.ask().status == 200)
            #expect(!node.log.contains("s3cret"))
            file.rateLimit = "requestsPerSecond: 5, redisURL: \"redis://gate:wr0ng@127.0.0.1:\(redis.port)/0\""
            let other = try scene.node(file)
            #expect(try other.ask().status == 200)
            try eventually("the node says what is wrong") { other.log.contains("WRONGPASS") }
            #expect(!other.log.contains("wr0ng"))
        }
    }

    @Test("the access log has one line a request, whatever is in the request", arguments: ["text", "json"])
    func accessLog(format: String) throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let path = "\(directory.path)/access.log"
            let backend = try scene.backend()
            let file = File([File.Service(path: "/a", urls: [backend.url])])
            let node = try scene.node(
                file,
                [
                    "--set", "gateway.accessLog=\(path)", "--set", "gateway.logFormat=\(format)", "--set",
                    "gateway.via=x",
                ])
            let requests = [
                "GET /a/plain HTTP/1.1\r\nHost: test\r\n\r\n", "GET /a/\"quoted\\\" HTTP/1.1\r\nHost: test\r\n\r\n",
                "GET /none HTTP/1.1\r\nHost: test\r\n\r\n", "nonsense \u{1b}[31m\r\n\r\n",
            ]
            for request in requests {
                let client = try node.connect()
                try client.send(request)
                _ = try client.readResponse()
            }
            #expect(try node.terminate() == 0)
            let lines = readFile(path).split(separator: "\n")
            #expect(lines.count == requests.count)
            #expect(lines.first?.contains("/a/plain") ?? false)
            #expect(lines.allSatisfy { line in line.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7f } })
            if format == "json" { #expect(lines.allSatisfy { $0.first == "{" && $0.last == "}" }) }
        }
    }

    @Test(
        "a drain ends at its timeout, and at a second signal, whatever is in flight", arguments: ["timeout", "signal"])
    func drainEnds(by: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                _ = try exchange.wire.endsHere()
                return .close
            }
            var file = File([backend])
            file.gateway = "drain: {timeout: \(by == "timeout" ? "100ms" : "1h")}"
            let node = try scene.node(file)
            let client = try node.connect()
            try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            try eventually("it is in flight") { backend.requests.count == 1 }
            node.process.signal(SIGTERM)
            try eventually("it drains") { node.log.contains(" draining ") }
            #expect(try by == "timeout" || node.admin("/readyz").status == 503)
            if by == "signal" { node.process.signal(SIGTERM) }
            #expect(try node.process.waitForExit() == 0)
        }
    }

    @Test("an upload that is under way when the node drains comes to its end")
    func drainDuringUpload() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer("\($0.request.body.count)")
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            let half = [UInt8](repeating: 65, count: 500_000)
            try client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
            try client.send(half)
            try eventually("the backend has some of it") { backend.bytes.count > 1_000 }
            node.process.signal(SIGTERM)
            try eventually("it drains") { node.log.contains(" draining ") }
            try client.send(half)
            #expect(try client.readResponse().text == "1000000")
            #expect(try client.endsHere())
            #expect(try node.process.waitForExit() == 0)
        }
    }
}
