import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Backends that fail")
struct FailureTests {
    /// Closes a connection when its second request has come, so that the pool's connection proves stale.
    private static func dyingOnSecond(_ scene: Scene) throws -> RecordingBackend {
        try scene.backend { exchange in
            if exchange.number == 1 { return .close }
            try exchange.answer("connection \(exchange.connection)")
            return .keep
        }
    }

    @Test("a pooled connection that has died costs a GET nothing")
    func staleGet() throws {
        try Scene.play { scene in
            let backend = try Self.dyingOnSecond(scene)
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for i in 0..<3 {
                try client.send("GET /\(i) HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try client.readResponse().text == "connection \(i)")
            }
            #expect(backend.requests.map(\.target) == ["/0", "/1", "/1", "/2", "/2"])
        }
    }

    @Test("a PUT with its body is sent again; a POST that may have been acted on is not")
    func staleBodies() throws {
        try Scene.play { scene in
            let backend = try Self.dyingOnSecond(scene)
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for i in 0..<2 {
                try client.send("PUT /\(i) HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody")
                #expect(try client.readResponse().text == "connection \(i)")
            }
            #expect(backend.requests.map(\.text) == ["body", "body", "body"])
            try client.send("POST /2 HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody")
            let answer = try client.readResponse()
            #expect(answer.status == 502)
            #expect(problemTitle(answer) == "Bad gateway")
            #expect(backend.requests.filter { $0.method == "POST" }.count == 1)
            // Without a body there is nothing that could not be sent again, and it must not be either.
            try client.send("GET /3 HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readResponse().status == 200)
            try client.send("POST /4 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
            #expect(try client.readResponse().status == 502)
            #expect(backend.requests.filter { $0.method == "POST" }.map(\.target) == ["/2", "/4"])
        }
    }

    @Test("a connection that the backend has closed while idle is not used, so a POST does not fail")
    func closedWhileIdle() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer()
                return .close
            }
            let node = try scene.node(File([backend]))
            let before = node.process.descriptorCount
            let client = try node.connect()
            for i in 0..<5 {
                try client.send("POST /\(i) HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx")
                #expect(try client.readResponse().status == 200)
                // A close that crosses a POST on its way is 502: nobody can tell whether it was acted on.
                try eventually("the node has seen the close") { node.process.descriptorCount == before + 1 }
            }
            #expect(backend.requests.count == 5)
        }
    }

    @Test("a request refused by one backend goes to the other, whatever its method", arguments: ["GET", "POST"])
    func refused(method: String) throws {
        try Scene.play { scene in
            let dead = try scene.backend()
            dead.stop()
            let alive = try scene.backend(named: "alive")
            var file = File([dead, alive])
            file.services[0].health = "active: false, failures: 1000"
            let node = try scene.node(file)
            for _ in 0..<10 {
                let answer = try node.ask("\(method) / HTTP/1.1", fields: "Content-Length: 1\r\n", body: "x")
                #expect(answer.text == "alive")
            }
            #expect(alive.requests.allSatisfy { $0.text == "x" })
        }
    }

    @Test("nobody to connect to is 502, and 503 once it is known")
    func nobody() throws {
        try Scene.play { scene in
            let dead = try scene.backend()
            dead.stop()
            var file = File([dead])
            file.services[0].health = "interval: 60s, failures: 1, downInterval: 60s, timeout: 1s"
            let node = try scene.node(file)
            try eventually("the probe has found it down") {
                try node.admin("/api/backends").text.contains("\"state\":\"down\"")
            }
            let answer = try node.ask()
            #expect(answer.status == 503)
            #expect(problemTitle(answer) == "No healthy backends available")
            #expect(answer.value("Retry-After") != nil)

            file.services[0].health = "active: false, failures: 1000"
            let other = try scene.node(file)
            let refusal = try other.ask()
            #expect(refusal.status == 502)
            #expect(problemTitle(refusal) == "Bad gateway")
        }
    }

    @Test("a backend that keeps silent is 504, and its late answer reaches nobody")
    func silence() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                if exchange.request.target == "/slow" {
                    // Ends when the node gives up the connection.
                    _ = try exchange.wire.endsHere()
                    try? exchange.answer("late")
                    return .close
                }
                try exchange.answer("quick")
                return .keep
            }
            let node = try scene.node(File([backend], "timeouts: {response: 100ms}"))
            let client = try node.connect()
            try client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\nGET /quick HTTP/1.1\r\nHost: test\r\n\r\n")
            let answer = try client.readResponse()
            #expect(answer.status == 504)
            #expect(problemTitle(answer) == "Gateway timeout")
            #expect(try client.readResponse().text == "quick")
        }
    }

    /// A backend that reads heads alone, says what it is told to, and then nothing any more.
    private static func mute(_ scene: Scene, saying text: String = "") throws -> RecordingBackend {
        scene.add(
            try RecordingBackend(serving: { backend, wire, _ in
                guard let request = try wire.readHead() else { return }
                backend.record(request)
                try wire.send(text)
                _ = try wire.readToEnd()
            }))
    }

    @Test("while a backend is asked whether it wants the body, its silence is its own: 504, which speaks against it")
    func silentExpectation() throws {
        try Scene.play { scene in
            let backend = try Self.mute(scene)
            let node = try scene.node(File([backend], "timeouts: {response: 100ms}"))
            let expecting = "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
            let client = try node.connect()
            try client.send(expecting)
            let answer = try client.readResponse()
            #expect(answer.status == 504)
            // The body may follow or not: nobody knows where the next request begins.
            #expect(answer.value("Connection") == "close")
            try eventually("it is told") { try node.row(of: backend.url).contains("\"lastError\":\"timeout") }
            // A client that does not wait has the whole of its request answered for.
            let hasty = try node.connect()
            try hasty.send(expecting + "hello")
            #expect(try hasty.readResponse().status == 504)
        }
    }

    @Test("a client that may go on and does not is too slow, and no fault of the backend", arguments: [true, false])
    func silentClient(isAsked: Bool) throws {
        try Scene.play { scene in
            let backend = try Self.mute(scene, saying: isAsked ? "HTTP/1.1 100 Continue\r\n\r\n" : "")
            var file = File([backend], "timeouts: {response: 50ms}")
            file.gateway = "limits: {bodyTimeout: 300ms}"
            let node = try scene.node(file)
            let client = try node.connect()
            let expectation = isAsked ? "Expect: 100-continue\r\n" : ""
            try client.send("POST / HTTP/1.1\r\nHost: test\r\n\(expectation)Content-Length: 5\r\n\r\n")
            if isAsked { #expect(try client.readHead()?.status == 100) }
            #expect(try client.readResponse().status == 408)
            #expect(try !node.row(of: backend.url).contains("\"lastError\":\"timeout"))
        }
    }

    static let brokenAnswers = [
        "garbage\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "",
        "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno chunk\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    ]

    @Test("an answer that is no HTTP is 502, and the connection is not used again", arguments: brokenAnswers)
    func nonsense(answer: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                guard exchange.request.target == "/bad" else {
                    try exchange.answer("good")
                    return .keep
                }
                try exchange.wire.send(answer)
                return .close
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            try client.send(
                "POST /bad HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\nGET /good HTTP/1.1\r\nHost: test\r\n\r\n")
            let refusal = try client.readResponse()
            #expect(refusal.status == 502)
            #expect(problemTitle(refusal) == "Bad gateway")
            #expect(try client.readResponse().text == "good")
        }
    }

    @Test("bytes behind an answer poison no other exchange")
    func surplus() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let body = "own \(exchange.request.target)"
                try exchange.wire.send(
                    "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
                        + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for i in 0..<20 {
                try client.send("GET /\(i) HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try client.readResponse().text == "own /\(i)")
            }
        }
    }

    @Test("an early answer to an upload reaches the client")
    func earlyAnswer() throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, _ in
                    guard try wire.readHead() != nil else { return }
                    try wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
                    wire.endSending()
                    // Reads on until the node lets go, as RFC 9112 §9.6 asks of a server.
                    _ = try? wire.readToEnd()
                }))
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            try client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\nbeginning")
            let answer = try client.readResponse()
            #expect(answer.status == 413)
            #expect(answer.text == "big")
        }
    }

    @Test(
        "a client that goes away in the midst of an exchange frees both connections", arguments: ["upload", "download"])
    func clientGone(during: String) throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { backend, wire, _ in
                    guard let request = try wire.readHead() else { return }
                    backend.record(request)
                    if request.method == "GET" {
                        try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                        while true { try wire.send([UInt8](repeating: 1, count: 65_536)) }
                    }
                    _ = try wire.readToEnd()
                }))
            let node = try scene.node(File([backend]))
            let before = node.process.descriptorCount
            do {
                let client = try node.connect()
                if during == "upload" {
                    try client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\nbeginning")
                } else {
                    try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                    #expect(try client.readHead()?.status == 200)
                }
                try eventually("the backend has the request") { backend.requests.count == 1 }
            }
            try eventually("the node closes both connections") { node.process.descriptorCount == before }
        }
    }
}
