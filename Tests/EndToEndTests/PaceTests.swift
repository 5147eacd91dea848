import Primitives
import TestSupport
import Testing

@Suite("Slow clients hold nothing for long")
struct SlowClientTests {
    @Test("an upload that always moves and gets nowhere is 408", arguments: [false, true])
    func upload(chunked: Bool) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "limits: {bodyTimeout: 1h, minBodyRate: 1MiB, rateGrace: 300ms}"
            let node = try scene.node(file)
            let client = try node.connect()
            let framing = chunked ? "Transfer-Encoding: chunked" : "Content-Length: 1000000"
            try client.send("POST / HTTP/1.1\r\nHost: test\r\n\(framing)\r\n\r\n")
            try client.send(chunked ? "1\r\nx\r\n" : "x")
            #expect(try client.readResponse().status == 408)
            // At its pace it passes, however large it is.
            let body = String(repeating: "x", count: 1_000_000)
            let fast = try node.ask("POST / HTTP/1.1", fields: "Content-Length: 1000000\r\n", body: body)
            #expect(fast.status == 200)
        }
    }

    @Test("a client that does not read its answer loses it, and its backend's connection is given back")
    func reading() throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                try exchange.answer(String(repeating: "x", count: 30_000_000))
                return .keep
            }
            var file = File([backend])
            file.gateway = "limits: {bodyTimeout: 1h, minReadRate: 1MiB, rateGrace: 300ms}"
            let node = try scene.node(file)
            let before = node.process.descriptorCount
            let slow = try node.connect(receiveBuffer: 4_096)
            try slow.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            try eventually("it is at the backend") { backend.requests.count == 1 }
            try eventually("both connections are given back") { node.process.descriptorCount <= before }
            #expect(throws: WireError.self) { try slow.readResponse() }
            // Who reads gets all of it.
            #expect(try node.ask().body.count == 30_000_000)
        }
    }

    @Test("a connection's last answer says so when its time is over")
    func keepAlive() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "limits: {keepAliveTimeout: 50ms}"
            let node = try scene.node(file)
            let client = try node.connect()
            var last = false
            try eventually("the connection ends") {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let answer = try client.readResponse()
                #expect(answer.status == 200)
                last = answer.value("Connection") == "close"
                return last
            }
            #expect(try client.endsHere())
        }
    }

    @Test("a shorter time for connections counts for those that are open")
    func reloadedKeepAlive() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            let node = try scene.node(file)
            let client = try node.connect()
            func isLast() throws -> Bool {
                try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                return try client.readResponse().value("Connection") == "close"
            }
            #expect(try !isLast())
            file.gateway = "limits: {keepAliveTimeout: 1h}"
            try node.reload(file.yaml)
            #expect(try !isLast())
            file.gateway = "limits: {keepAliveTimeout: 1ms}"
            try node.reload(file.yaml)
            #expect(try isLast())
            #expect(try client.endsHere())
        }
    }
}
