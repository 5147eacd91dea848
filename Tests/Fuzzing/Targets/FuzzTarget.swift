// What is fuzzed: functions from bytes to nothing, which throw a `Finding` where a promise is broken. The driver gives
// them what libFuzzer makes up; the tests give them the corpus.

import Primitives

/// A promise that an input broke.
struct Finding: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

func require(_ condition: Bool, _ what: @autoclosure () -> String) throws(Finding) {
    guard condition else { throw Finding(what()) }
}

struct FuzzTarget: Sendable, CustomStringConvertible {
    let name: String
    /// Makes the function, with what it keeps from one input to the next.
    let make: @Sendable () throws -> ([UInt8]) throws -> Void

    var description: String { name }
}

let fuzzTargets: [FuzzTarget] = [
    FuzzTarget(name: "request-head") { { try checkRequestHead($0) } },
    FuzzTarget(name: "response-head") { { try checkResponseHead($0) } },
    FuzzTarget(name: "chunked") { { try checkChunked($0) } },
    FuzzTarget(name: "forwarded") { { try checkForwarded($0) } },
    FuzzTarget(name: "proxy-header") { { try checkProxyHeader($0) } },
    FuzzTarget(name: "trace") { { try checkTrace($0) } },
    FuzzTarget(name: "redis-reply") { { try checkReplies($0) } },
    FuzzTarget(name: "connection") {
        let gateway = try GatewayInProcess()
        return { try checkConnection($0, gateway) }
    },
    FuzzTarget(name: "backend") {
        let gateway = try GatewayInProcess()
        return { try checkBackend($0, gateway) }
    },
]

/// Where to cut bytes, in order, with both ends: at every byte where there are few, else at `count` places by chance.
func cuts(of length: Int, seed: UInt64, count: Int = 16, everywhereUpTo short: Int = 0) -> [Int] {
    if length <= short { return Array(0...length) }
    var random = SplitMix64(seed: seed)
    var places: Set<Int> = [0, length]
    for _ in 0..<count { places.insert(Int.random(in: 0...length, using: &random)) }
    return places.sorted()
}

/// Bytes as they are shown to people.
func shown(_ bytes: some Sequence<UInt8>) -> String {
    var text = ""
    for byte in bytes {
        switch byte {
        case 0x0d: text += "\\r"
        case 0x0a: text += "\\n"
        case 0x20..<0x7f: text.unicodeScalars.append(Unicode.Scalar(byte))
        default: text += "\\x" + String(byte, radix: 16)
        }
    }
    return text
}
