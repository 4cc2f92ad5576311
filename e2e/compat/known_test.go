package compat

// difference is one that is meant. Each side has to contain its text.
type difference struct{ upstream, lark, reason string }

// The reasons that more than one difference has.
const (
	answersInJSON = "every containerd from 2.0 on reads JSON, so that the two can be replaced one after the other (containerd #13763, #13910)"
	namedByBinary = "the name is that by which containerd finds the binary; installed as containerd-shim-runc-v2 it is upstream's"
	badStream     = "what cannot be a stream is refused before anything is opened; upstream's text is that of a failed open"
	stdoutAlone   = "a stream that is not asked for is discarded; upstream takes one without the other for a file named \"\""
	noOutput      = "a terminal without output is discarded; upstream fails to open \"\""
	ownSpec       = "lark reads config.json before the runtime does, and says what is wrong with it"
	waitOfFailed  = "Wait of an exec whose start failed: upstream's answers that it ended with 0 in the year 1"
	createdDelete = "W3: Delete of a created task waits for init's death and tells its exit before the delete"
	createdExec   = "row 14: an exec before the start of init is refused"
	hostMissing   = "NotFound orders a client to forget a container, and is not said of a directory or a cgroup that is not there"
	crashes       = "a fault of upstream's: the shim dies and takes the pod's other containers out of containerd's hands"
)

// knownDifferences are all that there are, by "scenario: observation".
var knownDifferences = map[string]difference{
	"signals: kill all of a stopped container": {"", "process already finished",
		"Kill of a stopped container is NotFound, with or without all; upstream lets the runtime decide, which differs by its version"},
	"a pod: second start says": {"proto version 3", "json version 3", answersInJSON},
	"the process: answer":      {"proto 3", "json 3", answersInJSON},
	"the process: environment": {"OTEL_SERVICE_NAME", "TTRPC_ADDRESS", "lark has no tracing, so that the variable would be nobody's, and chooses its number of Ps itself"},

	"created container: exec":         {"", "FailedPrecondition", createdExec},
	"created container: events of c1": {"TaskExecAdded", "TaskCreate", createdExec},

	"a running exec started again: wait":         {"Unavailable", "exit_status=137", crashes},
	"a running exec started again: connect":      {"Unavailable", "shim_pid", crashes},
	"a running exec started again: events of c1": {"TaskCreate", "TaskDelete", crashes},
	"an exec of nothing: exec of nothing":        {"Unavailable", "InvalidArgument", crashes},
	"an exec of nothing: connect":                {"Unavailable", "shim_pid", crashes},
	"an exec of nothing: events of c1":           {"TaskStart", "TaskDelete", crashes},

	"paused container: start exec": {"OCI runtime exec failed", "FailedPrecondition",
		"a paused container takes no exec; upstream has the runtime try"},
	"stopped container: start of unknown exec stopped": {"init process is not running", "NotFound",
		"an exec that is not there is NotFound in every state"},

	"stopped container: pids": {"", "init of c1",
		"a containerd that is restarted takes a task without processes for one that was deleted, and drops its exit"},

	"delete of a created container: delete":       {"exited_at=never", "exit_status=137 exited_at=then", createdDelete},
	"delete of a created container: events of c1": {"TaskDelete: container_id=c1 exited_at=never", "TaskDelete: container_id=c1 exit_status=137 exited_at=then", createdDelete},

	"programs that are not there: wait of exec": {"exited_at=never", "FailedPrecondition", waitOfFailed},
	"exec fails: wait":                          {"exited_at=never", "FailedPrecondition", waitOfFailed},
	"a runtime that is not there: create": {"no such file or directory", `"executable file not found in $PATH" "\"no-runc\""]`,
		"upstream adds that the runtime's log is not there, which a runtime that was not found cannot have written"},

	"a bundle that is damaged: create with config.json \"\"":                  {"OCI runtime create failed", "InvalidArgument", ownSpec},
	"a bundle that is damaged: create with config.json \"{\"":                 {"OCI runtime create failed", "InvalidArgument", ownSpec},
	"a bundle that is damaged: create without a bundle":                       {"NotFound", "FailedPrecondition", hostMissing},
	"streams that cannot be: create with a terminal that config.json has not": {"OCI runtime create failed", "InvalidArgument", ownSpec},

	"fifos: start exec with stdout alone": {"no such file", "pid=exec e1", stdoutAlone},
	"fifos: wait exec":                    {"", "exited_at=then", stdoutAlone},
	"fifos: its stdout":                   {"", "one", stdoutAlone},
	"fifos: events of c2":                 {"exec_id=e2", "exec_id=e1 pid=exec e1", stdoutAlone},

	"streams that cannot be: create with a terminal and a file":    {"no such file", "InvalidArgument", badStream},
	"streams that cannot be: create with a terminal and no output": {"no such file", "pid=init", noOutput},
	"streams that cannot be: events of terminal-2":                 {"", "TaskCreate", noOutput},

	"restore: stats running":               {"NotFound", "v1.Metrics", "W5: a restored container has its cgroup"},
	"restore: calls are made in":           {`["HOME/bundles/c1"]`, `["HOME/bundles/c1" "HOME/bundles/c2"]`, "every container's calls are made in its own bundle, not in that of the first of its pod"},
	"kill of what is to be restored: kill": {"NotFound", "FailedPrecondition", "it has no process yet; upstream asks the runtime, which knows no such container"},
	"the runtime forgets: kill":            {"NotFound []", "", "init lives, whatever the runtime knows of it, and is signalled through its pidfd"},
	"restore: stats created":               {"NotFound", "FailedPrecondition", hostMissing},

	"info: no options: name":                  {"io.containerd.runc.v2", "io.containerd.lark.v2", namedByBinary},
	"info: options: name":                     {"io.containerd.runc.v2", "io.containerd.lark.v2", namedByBinary},
	"info with a fake runtime: options: name": {"io.containerd.runc.v2", "io.containerd.lark.v2", namedByBinary},
	"info without features: options: name":    {"io.containerd.runc.v2", "io.containerd.lark.v2", namedByBinary},
}
