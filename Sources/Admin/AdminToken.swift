import LinuxIO

/// The token of a listener for which none is configured: made anew with each start, and left where only programs of the
/// same user find it, so that an operator at the machine needs no ceremony and nobody else can write.
///
/// A process that takes over a listener has the token of the one before it: that one still answers, and goes on if this
/// one fails.
///
/// Where the next process listens elsewhere for its operators, the file goes with the process that it belongs to; where it
/// listens here too, it stays, whichever of them ends first.
package enum AdminToken {
    private static func name(port: UInt16) -> String { "sluice-admin-\(port).token" }

    /// `nil` where no folder would keep it.
    static func leave(port: UInt16, inheriting: Bool) -> SecretFile? {
        if inheriting, let file = SecretFile.share(name: name(port: port)), isToken(file.text) { return file }
        let token = (0..<2).map { _ in
            let digits = String(SystemClock.random64(), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
        return SecretFile.write(token, name: name(port: port))
    }

    /// As they are made here.
    private static func isToken(_ text: String) -> Bool {
        text.utf8.count == 32 && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    /// What a node on this machine has left, if it is the caller's to read.
    package static func find(port: UInt16) -> String? { SecretFile.read(name: name(port: port)) }
}
