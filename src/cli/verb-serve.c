/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <syslog.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/output.h"
#include "service/config-file.h"
#include "service/instance.h"
#include "service/notify.h"
#include "service/supervisor.h"

/* Reads the file of an export into the command's configuration. */
static int serve_configure(struct command *c, const char *name, char path[PATH_MAX],
			   struct diag *diag)
{
	struct config config;
	int r = instance_check(name, diag);

	if (r == 0)
		r = config_file_read(instance_find_file(name, path), &config, diag);
	if (r == -ENOENT)
		return diag_set(diag, r,
				"%s: there is no such file; it is to say what the export \"%s\" "
				"shows, see fuseimg.conf(5)",
				path, name);
	if (r < 0)
		return r;
	config_done(&c->config);
	c->config = config;
	return 0;
}

/* What the service manager shows of a service that never came to life. */
static void serve_report(const struct diag *diag)
{
	char shown[DIAG_MAX * 2];
	struct notify n;

	log_msg(LOG_ERR, "%s", diag->text);
	notify_init(&n);
	diag_quote(shown, sizeof(shown), diag->text, strlen(diag->text));
	notify_state(&n, "STATUS=%s\nERRNO=%d", shown, -diag->error);
	notify_done(&n);
}

static void serve_ready(void *data, int error, const struct diag *diag)
{
	bool *started = data;

	*started |= error == 0;
}

/* Would the next try, a moment later, say the same? It would use up the starts that systemd grants
 * in a minute: of a disk that was pulled out, and is back before that, nobody would take notice. */
static bool serve_is_final(int error)
{
	static const int final[] = {ENOENT,	 ENOTDIR,    EISDIR,  ENOTBLK, ENODEV, ENXIO,
				    EMEDIUMTYPE, EOPNOTSUPP, EUCLEAN, EFBIG,   ELOOP,  EROFS};

	for (size_t i = 0; i < ARRAY_SIZE(final); i++)
		if (error == -final[i])
			return true;
	return false;
}

int verb_serve(struct command *c, struct diag *diag)
{
	const char *name = c->words[0];
	char path[PATH_MAX] = "", runtime[PATH_MAX], target[PATH_MAX];
	bool started = supervisor_goes_on();
	struct supervisor_options options = {
		.config = &c->config,
		.name = name,
		.settings = path,
		.target = target,
		.make_target = true,
		.argv = c->argv,
		.ready = serve_ready,
		.ready_data = &started,
	};
	int r;

	log_init("fuseimg", LOG_TO_STDERR);
	c->reported = true; /* from here on, messages go where those of a service go */
	r = serve_configure(c, name, path, diag);
	if (r < 0 && supervisor_goes_on()) {
		log_msg(LOG_WARNING, "%s; the export goes on as it was", diag->text);
		r = 0;
	}
	if (r < 0) {
		c->status = COMMAND_EXIT_CONFIG;
		serve_report(diag);
		return r;
	}
	instance_target(name, target);
	/* What mount.fuseimg has written down is changed where it was said, in fstab or behind -o
	 */
	if (strcmp(path, instance_runtime_file(name, runtime)) == 0)
		options.settings = NULL;
	r = supervisor_run(&options, diag);
	if (!started && serve_is_final(r))
		c->status = COMMAND_EXIT_CONFIG;
	return r == -ECANCELED ? 0 : r; /* told to stop before it was ready: as it was told */
}
