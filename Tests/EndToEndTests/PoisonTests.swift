import Glibc
import Synchronization
import TestSupport
import Testing

@Suite("Whose answer it is")
struct PoisonTests {
    /// Answers on the way to an idle connection. The node stands still while they and the next request arrive, so that it
    /// finds both in one turn, the request first.
    @Test(
        "bytes that a backend sends behind its answer reach no later request", arguments: ["GET", "POST"],
        [
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "HTTP/1.1 204 No Content\r\n\r\n", "evil",
            "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ])
    func late(method: String, stray: String) throws {
        try Scene.play { scene in
            let wires = Mutex<[Wire]>([])
            let backend = try scene.backend { exchange in
                wires.withLock { if !$0.contains(where: { $0 === exchange.wire }) { $0.append(exchange.wire) } }
                try exchange.answer(exchange.request.target)
                return .keep
            }
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            for i in 0..<5 {
                try client.send("\(method) /a\(i) HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
                #expect(try client.readResponse().text == "/a\(i)")
                try node.process.suspend()
                try client.send("\(method) /b\(i) HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
                for wire in wires.withLock({ $0 }) { try? wire.send(stray) }
                node.process.signal(SIGCONT)
                #expect(try client.readResponse().text == "/b\(i)")
            }
        }
    }

    /// More than the buffers of both sides hold.
    private static let upload = 32 << 20

    @Test("a client that sends all of its upload before it reads still gets the refusal")
    func refusedUpload() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([File.Service(path: "/here", urls: [backend.url])]))
            let client = try node.connect()
            try client.send("POST /there HTTP/1.1\r\nHost: h\r\nContent-Length: \(Self.upload)\r\n\r\n")
            try client.send([UInt8](repeating: 120, count: Self.upload))
            let answer = try client.readResponse()
            #expect(answer.status == 404)
            #expect(answer.value("Connection") == "close")
            #expect(try client.endsHere())
        }
    }

    @Test(
        "so does one whose backend answers early, whether or not it reads on or closes with a reset",
        arguments: ["read", "close", "reset"])
    func earlyAnswer(then: String) throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { _, wire, _ in
                    guard try wire.readHead() != nil else { return }
                    try wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nearly")
                    if then == "read" { _ = try wire.readToEnd() }
                    if then == "reset" { wire.resetOnClose() }
                }))
            let node = try scene.node(File([backend]))
            let client = try node.connect()
            try client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \(Self.upload)\r\n\r\n")
            try client.send([UInt8](repeating: 120, count: Self.upload))
            let answer = try client.readResponse()
            #expect(answer.status == 403)
            #expect(answer.text == "early")
            #expect(answer.value("Connection") == "close")
            #expect(try client.endsHere())
        }
    }
}
