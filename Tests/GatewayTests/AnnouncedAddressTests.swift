import LinuxIO
import Primitives
import Testing

@testable import Gateway

@Suite("Where a node says that it is")
struct AnnouncedAddressTests {
    @Test(
        "an address of its own stands; all interfaces are this host",
        arguments: [
            ("127.0.0.2", "127.0.0.2:8080"), ("2001:db8::1", "[2001:db8::1]:8080"), ("0.0.0.0", "gw-1:8080"),
            ("::", "gw-1:8080"),
        ])
    func announced(address: String, expected: String) throws {
        let socket = SocketAddress(ip: try #require(IPAddress(address)), port: 8080)
        #expect(socket.announced(host: "gw-1") == expected)
    }
}
