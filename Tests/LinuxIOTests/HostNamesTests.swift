import LinuxIO
import Primitives
import Testing

@Suite("Host names")
struct HostNamesTests {
    @Test(
        "an address resolves to itself and asks nobody",
        arguments: ["127.0.0.1", "0.0.0.0", "203.0.113.7", "::1", "::", "2001:db8::1", "::ffff:192.0.2.1"])
    func resolvesLiterals(text: String) throws {
        let address = try #require(IPAddress(text))
        #expect(try HostNames.resolve(text) == [address])
    }

    /// inet_aton(3) reads octal, hexadecimal and shortened numbers, which a person and this package read otherwise.
    @Test(
        "what the C library takes for an address, but we do not, is refused",
        arguments: [
            "127.1", "10.0.1", "2130706433", "0", "0x7f000001", "0x7f.0.0.1", "010.0.0.1", "127.0.0.01", "0177.0.0.1",
            "::1%1",
        ])
    func refusesOtherNumericForms(text: String) {
        let error = #expect(throws: ResolutionError.self) { try HostNames.resolve(text) }
        #expect(error?.host == text)
        #expect(error?.description == "\(text): neither a plain IPv4 or IPv6 address nor a name")
    }

    @Test(
        "a name with a NUL in it is refused instead of being cut there",
        arguments: ["localhost\0.example", "127.0.0.1\0", "\0"])
    func refusesNul(text: String) {
        let error = #expect(throws: ResolutionError.self) { try HostNames.resolve(text) }
        #expect(error?.reason == "a name holds no NUL")
    }

    @Test("what can be no name fails with a reason", arguments: ["", String(repeating: "a", count: 70_000)])
    func refusesImpossibleNames(text: String) {
        let error = #expect(throws: ResolutionError.self) { try HostNames.resolve(text) }
        #expect(error?.host == text)
        #expect(error?.reason.isEmpty == false)
    }

    @Test("localhost is a loopback address")
    func resolvesLocalhost() throws {
        let addresses = try HostNames.resolve("localhost")
        #expect(!addresses.isEmpty)
        #expect(addresses.allSatisfy { $0 == .v6Loopback || CIDR("127.0.0.0/8")?.contains($0) == true })
        #expect(Set(addresses).count == addresses.count)
    }

    @Test("this machine has a name without a NUL")
    func knowsItsOwnName() {
        let name = HostNames.local()
        #expect(!name.isEmpty)
        #expect(!name.utf8.contains(0))
    }
}
