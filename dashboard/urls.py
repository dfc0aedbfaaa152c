"""The addresses of views.py, under /dashboard/."""

from __future__ import annotations

from django.urls import path

from dashboard import views

app_name = "dashboard"
urlpatterns = [
    path("", views.index, name="index"),
    path("state.json", views.state, name="state"),
    path("sessions.json", views.session_table, name="sessions"),
    path("replicas/<int:id>/", views.replica, name="replica"),
    path("replicas/<int:id>/history.json", views.replica_history, name="history"),
    path("act", views.act, name="act"),
]
