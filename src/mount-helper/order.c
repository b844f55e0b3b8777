/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mount-helper/order.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "generator/needs.h"

static const char order_dir[] = "/run/systemd/system";
static const char order_generated[] = "/run/systemd/generator";

/* The generator has spoken: a drop-in that comes after the unit was read would only make systemd
 * ask for a reload. */
static bool order_is_known(const char *unit)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.d", order_generated, unit);
	return access(path, F_OK) == 0;
}

void order_write(const struct source *s, const char *image, const char *dir)
{
	_cleanup_close_ int fd = open(order_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct unit_dir units = {.fd = fd, .path = order_dir, .writer = "mount.fuseimg(8)"};
	char source[PATH_MAX], service[UNIT_NAME_SIZE], mount[UNIT_NAME_SIZE];
	char drop_in[NAME_MAX + 1];
	struct needs needs = {.image = image};

	if (fd < 0 || !s->ours)
		return;
	instance_runtime_file(s->name, source);
	needs_service(s->name, service);
	if (needs_init(&needs, source, NULL) < 0 ||
	    needs_unit(source, dir, ".mount", mount, NULL) < 0)
		return;
	if (!order_is_known(service))
		(void)needs_write(&needs, &units, service, NULL, NULL);
	/* Without a source: the next mount of the image may have other options, and systemd would
	 * warn of a unit that is older. Another image may have been mounted there before, whose
	 * order does no harm */
	if (!order_is_known(mount) &&
	    snprintf(drop_in, sizeof(drop_in), "50-%s.conf", service) < (int)sizeof(drop_in))
		(void)needs_write_order(&needs, &units, s->name, mount, drop_in, NULL, NULL);
}
