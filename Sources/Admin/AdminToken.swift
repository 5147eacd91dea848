import LinuxIO

/// The token of a listener for which none is configured: made anew with each start, and left where only programs of the
/// same user find it, so that an operator at the machine needs no ceremony and nobody else can write.
package enum AdminToken {
    private static func name(port: UInt16) -> String { "sluice-admin-\(port).token" }

    static func leave(port: UInt16) -> (token: String, path: String)? {
        let token = (0..<2).map { _ in
            let digits = String(SystemClock.random64(), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
        return SecretFile.write(token, name: name(port: port)).map { (token, $0) }
    }

    /// What a node on this machine has left, if it is the caller's to read.
    package static func find(port: UInt16) -> String? { SecretFile.read(name: name(port: port)) }
}
