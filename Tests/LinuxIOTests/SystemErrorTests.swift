import Glibc
import LinuxIO
import Testing

@Suite("Errors of system calls")
struct SystemErrorTests {
    @Test(
        "the reason is in the system's own words",
        arguments: [
            (ECONNREFUSED, "Connection refused"), (ECONNRESET, "Connection reset by peer"), (EPIPE, "Broken pipe"),
            (ETIMEDOUT, "Connection timed out"), (EADDRINUSE, "Address already in use"), (EACCES, "Permission denied"),
            (EHOSTUNREACH, "No route to host"), (ENETUNREACH, "Network is unreachable"),
            (EMFILE, "Too many open files"),
            (ENOENT, "No such file or directory"), (EINVAL, "Invalid argument"),
        ])
    func givesReasons(number: Int32, reason: String) {
        #expect(SystemError("connect", number: number).reason == reason)
    }

    @Test("a number that the system does not know is shown as it is", arguments: [9_999, -1, .max, .min] as [Int32])
    func showsUnknownNumbers(number: Int32) {
        #expect(SystemError("connect", number: number).reason == "error \(number)")
    }

    @Test("the description names the call that failed")
    func namesTheCall() {
        #expect(SystemError("connect", number: ECONNREFUSED).description == "connect: Connection refused")
        #expect(SystemError("send", number: EPIPE).description == "send: Broken pipe")
    }

    @Test("a failed call leaves its own error")
    func readsErrno() {
        #expect(throws: SystemError("open", number: ENOENT)) { try append("/nonexistent/directory/file") }
        #expect(throws: SystemError("open", number: EISDIR)) { try append("/") }
    }

    private func append(_ path: String) throws { _ = try OutputFile.append(path: path) }

    @Test("only what a closed descriptor would cure says that descriptors ran out")
    func classifies() {
        for number in Int32(1)..<134 {
            let error = SystemError("accept4", number: number)
            #expect(error.isOutOfDescriptors == [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(number), "\(error)")
            #expect(error.isAddressInUse == (number == EADDRINUSE), "\(error)")
        }
    }
}
