import LinuxIO
import Primitives
import Testing

@Suite("Sockets")
struct SocketTests {
    @Test("a read without room is no end of the stream", arguments: [0, -1])
    func readsNothingWithoutRoom(room: Int) throws {
        let listener = try ListeningSocket(SocketAddress(ip: .v4Loopback, port: 0), reusePort: false)
        let client = try Socket.connect(to: .tcp(listener.address))
        let epoll = try Epoll()
        try epoll.addLevelTriggered(listener.descriptor, cookie: 1)
        while epoll.wait(atMost: nil) == 0 {}
        guard let accepted = try listener.accept() else {
            Issue.record("the listener was readable, but nobody waited")
            return
        }
        let server = accepted.take()
        let sent: [UInt8] = [1, 2, 3]
        #expect(Socket.send(server, sent.span) == .bytes(3))

        var buffer = ByteBuffer()
        #expect(Socket.receive(client, into: &buffer, room: room) == .bytes(0))
        #expect(buffer.count == 0)

        epoll.remove(listener.descriptor)
        try epoll.addLevelTriggered(client, cookie: 2)
        while epoll.wait(atMost: nil) == 0 {}
        #expect(Socket.receive(client, into: &buffer, room: 2) == .bytes(2))
        #expect(Socket.receive(client, into: &buffer, room: 2) == .bytes(1))
        #expect(buffer.array == sent)
        #expect(Socket.receive(client, into: &buffer, room: 2) == .wouldBlock)
    }
}
