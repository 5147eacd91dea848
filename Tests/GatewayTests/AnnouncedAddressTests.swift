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

    @Test(
        "others find it where it listens, or by the interface that leads to Redis; by this host's own only from here",
        arguments: [
            ("10.0.0.5:8080", "10.0.0.9:40000", "10.0.0.5:8080"), ("10.0.0.5:8080", nil, "10.0.0.5:8080"),
            ("0.0.0.0:8080", "10.0.0.9:40000", "10.0.0.9:8080"), ("[::]:8080", "10.0.0.9:40000", "10.0.0.9:8080"),
            ("[::]:8080", "[2001:db8::9]:4", "[2001:db8::9]:8080"), ("0.0.0.0:8080", "[2001:db8::9]:4", nil),
            ("[::]:8080", "[::ffff:10.0.0.9]:4", "10.0.0.9:8080"), ("[::]:8080", "127.0.0.1:4", "127.0.0.1:8080"),
            ("[::]:8080", nil, "127.0.0.1:8080"), ("127.0.0.2:8080", "127.0.0.1:4", "127.0.0.2:8080"),
            ("127.0.0.2:8080", nil, "127.0.0.2:8080"), ("127.0.0.2:8080", "10.0.0.9:40000", nil),
        ] as [(String, String?, String?)])
    func reach(listening: String, toRedis: String?, expected: String?) throws {
        let address = try #require(SocketAddress(listening))
        #expect(address.reach(onNetworkOf: toRedis.flatMap { SocketAddress($0) })?.description == expected)
    }
}
