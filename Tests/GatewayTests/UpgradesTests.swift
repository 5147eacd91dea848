import Testing

@testable import Gateway

@Suite("Protocols to upgrade to")
struct UpgradesTests {
    private let upgrades = Upgrades(["websocket", "my-protocol"])

    @Test(
        "the first listed protocol of the field is taken, others are passed over",
        arguments: [
            ("websocket", "websocket"), ("WebSocket", "WebSocket"), (" websocket\t", "websocket"),
            ("h2c, websocket", "websocket"), ("websocket, my-protocol", "websocket"),
            ("my-protocol/1.1, websocket", "my-protocol/1.1"), ("h2c,,WEBSOCKET/13,", "WEBSOCKET/13"),
            ("h2c", nil), ("", nil), (",", nil), ("websocket2", nil), ("web", nil), ("websocket/", nil),
            ("websocket evil", nil), ("websocket/13 x", nil), ("websocket\u{0}", nil), ("websocket/a/b", nil),
            ("\u{17f}websocket", nil), ("wEBsOCKET;q=1", nil),
        ] as [(String, String?)])
    func first(value: String, expected: String?) {
        let bytes = Array("x\(value)y".utf8)
        let found = upgrades.first(in: 1..<(bytes.count - 1), of: bytes.span)
        #expect(found.map { String(decoding: bytes[$0.element], as: UTF8.self) } == expected)
    }

    @Test(
        "an answer names the protocol that was asked for, and no other",
        arguments: [
            ("websocket", true), (" WEBSOCKET ", true), ("websocket/13", true), ("my-protocol", false),
            ("websocket, my-protocol", false), ("h2c, websocket", false), ("", false),
        ])
    func only(value: String, expected: Bool) {
        let bytes = Array(value.utf8)
        func isOnly(_ name: Int) -> Bool { upgrades.isOnly(name, in: 0..<bytes.count, of: bytes.span) }
        #expect(isOnly(0) == expected)
        #expect(!isOnly(2) && !isOnly(-1))
    }

    @Test("a service without upgrades takes none")
    func none() {
        let bytes = Array("websocket".utf8)
        let found = Upgrades([]).first(in: 0..<bytes.count, of: bytes.span)
        #expect(found == nil)
    }
}
